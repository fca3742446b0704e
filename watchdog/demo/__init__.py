"""The demonstration: the real service on a cluster in this process, and one bad version after another.

scenarios   what is played, and what is promised of its end
stage       the sandbox, the traffic and the service, put together
play        one play, from the first version to the checked end
view        how it looks
"""
