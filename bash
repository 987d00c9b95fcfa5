bash: line 1: /tmp/w/ci.sh: Permission denied
