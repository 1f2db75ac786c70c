"""Live state in Redis: fleet, ledger, tau, parameters, events. Every change is one Lua script."""
