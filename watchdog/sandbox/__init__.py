"""A Kubernetes API in this process, for the demonstration and for tests where no control plane can be built.

    resources     which kinds there are, and what each can do
    refusals      what the API says when it says no
    store         the objects, their versions and generations, and who is told of a change
    cluster       all of it together: `start`

It is held to a real control plane by tests/cluster/conformance; where the two differ, this one is wrong. It guards
nothing: whoever reaches its port may do everything, so it listens on loopback only.
"""
