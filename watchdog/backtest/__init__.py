"""Past rollouts, judged once more: what the policies, and the rules of others, would have done.

rollouts  which there were, from ReplicaSets and kube-state-metrics
reading   what is asked of Prometheus
scene     who was there: pods by their names, and the undo
replay    the service's own watch, and the checkers of others
labels    what a rollout was, with hindsight
summary   caught, missed, false, saved
page      the same as one HTML page
competitors  what others look at, and when they roll back
"""
