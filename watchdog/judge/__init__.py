"""What the numbers say, from values alone: no clock, no IO, no logging, no configuration.

blocks      the nouns: rows and readings of counters, pod facts, blocks, why nothing can be judged
counters    (readings, pod facts) to blocks
eprocess    the shared sequential test: bets, onsets, caps
concurrent  the candidate against the stable pods of the same block
historical  the candidate against a reference frozen before the rollout
past        what a workload counted before, window by window
calibration that reference and the size of error clusters, from the past
objections  what turns acting into asking
sequential  the rule of that name: both controls, their bars and objections, block by block
threshold   the rule `threshold` over blocks
starved     callers that stay away
evaluations evaluations that are posted, by the rule `sequential`
detection_time  how soon a failure would be seen
conditions  what Kubernetes itself says of the candidate: deadline, crash loop, image pull
verdict     all of it in one word
"""
