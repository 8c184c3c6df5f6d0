"""Beside the job: recheck, preview, convert, sample videos."""
