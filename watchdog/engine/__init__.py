"""The loops of the service, in the order of the walk from what is seen to the verified end.

service         everything that runs, and what HTTP asks of it
context         what the loops share: parts, records, Events
faults          a fault that nobody foresaw costs one step of its own rollout
fleet           the Deployments of the watched namespaces, and whose they are
rollouts        from what the watch shows to rollouts: begun, complete, superseded
topologies      what differs between the topologies
bluegreen       the same for the colours of a Service
claims          what marks claim, and what records prove
lifecycle       where a watch begins, and where it ends
new_record      the record of a rollout that comes under watch
observation     a workload as the API server shows it
observer        many workloads, read together
polling         every step: pods, counters, and who is judged
polled          what a step showed of a rollout
tracks          which pods are the candidate's
pod_timeline    when pods began, were Ready and went
questions       what is asked of Prometheus in a step
watch_start     what has to be known before the first step
baselines       what the day before says
watch           one rollout's counters, rule and verdicts, step by step; the gate judges with it, too
rules           the rules behind one interface
bystanders      what other workloads count meanwhile
evaluations     evaluations that are posted
alerts          alerts: held, attributed, and never a proof alone
incidents       what a step's numbers do to the rollouts under watch
decide_breach   act, ask, wait or refuse
carry_out       the action that was decided, tried until it is done or given up
act             one action on one Deployment
switching       one switch-back of a Service
attempts        one write on something that others write, too
writes          what every write has in common, and what follows it
settle          verified, recovered, ended
verify          the proof that an action worked
recovery        the proof that the signal is well again
notifications   people are told of every record that changed
wording         one sentence for each outcome and each Event
"""
