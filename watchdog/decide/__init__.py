"""What to do, decided from values alone: no clock, no IO, no logging; `now` is an argument.

record      the record of a rollout under watch
incident    the states of a record, and what leads from one to the next
attribution which rollout an alert is about
evaluations on which side a posted batch counts
limits      the judgement guards: what keeps the service from acting without a person
target      which revision the service goes back to
templates   are two pod templates the same, and where do they differ
marks       the annotations of this project, written and read
revisions   the revisions of a workload, and which one an undo goes to
status      is a rollout complete
pods        why pods do not run
guards      the policy guards: may one refuse
patches     JSON patches, operation by operation
plan        the exact writes of an action on a Deployment
switch      the exact writes of a switch-back
"""
