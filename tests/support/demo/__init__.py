"""The demo: the operator's story on a real control plane, told in a terminal and checked fact by fact.

`python -m tests.support.demo` tells it. `story` has the scenes, `stage` what they play on, `checker` holds each fact
against the sandbox's ledger and the cluster, `narrator` writes it all down for a person.
"""
