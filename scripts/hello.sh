#!/bin/sh
# What `make demo` submits: a script that takes a moment, so that one sees its output come.
echo "Hello from task $CYNODE_TASK_ID, attempt $CYNODE_ATTEMPT."
for step in 1 2 3; do
    echo "step $step of 3"
    sleep 0.2
done
echo "This line goes to stderr." >&2
echo "I ran in $(pwd) as uid $(id -u); nobody else is here:"
ls -A / 2>/dev/null | tr '\n' ' '
echo
