"""A Kubernetes API in this process, for the demonstration and for tests where no control plane can be built.

    resources     which kinds there are, and what each can do
    refusals      what the API says when it says no
    store         the objects, their versions and generations, and who is told of a change
    fields        what is no field of a workload
    ownership     who last wrote which field
    admission     defaults and validation
    patching      the three patches; `schema` says which lists are merged
    selecting     label and field selectors
    reading       pages of lists, and watches
    tables        the shapes an answer can have
    discovery     what the API says of itself
    reviews       whose a token is, and what its owner may do
    rights        what Roles allow
    api           all of that over HTTP; `scale` is its subresource
    deployments   the Deployment controller, with the arithmetic in `rollout` and the numbering in `revisions`
    replicasets   the ReplicaSet controller
    controllers   run both, from a `queue`
    kubelet       plays pods by the annotations of their template
    cluster       all of it together: `start`

It is held to a real control plane by tests/cluster/conformance; where the two differ, this one is wrong. It guards
nothing: whoever reaches its port may do everything, so it listens on loopback only.
"""
