# Prints the status as JSON; releases differ in how they are asked.
bootc status --json 2>/dev/null || bootc status --format json
