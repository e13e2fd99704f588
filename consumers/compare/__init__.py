"""Two sets of rows side by side: what each covers, how even and how varied it is, and what its quotas say."""
