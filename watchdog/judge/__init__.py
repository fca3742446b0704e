"""What the numbers say, from values alone: no clock, no IO, no logging, no configuration.

blocks      the nouns: rows and readings of counters, pod facts, blocks, why nothing can be judged
counters    (readings, pod facts) to blocks
threshold   the rule `threshold` over blocks
conditions  what Kubernetes itself says of the candidate: deadline, crash loop, image pull
verdict     all of it in one word
"""
