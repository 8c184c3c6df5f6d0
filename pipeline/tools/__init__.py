"""Beside the job: recheck, preview, sample videos."""
