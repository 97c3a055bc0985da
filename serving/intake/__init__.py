"""Events from outside: checked, kept, and only then acknowledged. The durable log, and how events come into it over HTTP."""
