"""Deep-Emotion (Minaee & Abdolrashidi, arXiv 1902.01019) in JAX."""
