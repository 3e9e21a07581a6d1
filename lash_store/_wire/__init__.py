"""JSON shapes that more than one store writes: what describes a process, and what led to it.

A process is described where it is registered, and in the trigger that will start it; so these
belong to neither store. Each shape has a record, and a function ``written_…`` that checks one
and gives the object that is stored, its fields in the order of the wire.
"""
