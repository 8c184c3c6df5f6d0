"""The job on Ray: plan, process, commit, finalize, resume."""
