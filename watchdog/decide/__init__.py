"""What to do, decided from values alone: no clock, no IO, no logging; `now` is an argument.

templates   are two pod templates the same, and where do they differ
marks       the annotations of this project, written and read
history     revisions, and which one an undo goes to
status      is a rollout complete
guards      may a policy guard refuse
plan        the exact writes of an action
"""
