"""Jobs: experiments sent to a cluster, followed and stopped from afar."""
