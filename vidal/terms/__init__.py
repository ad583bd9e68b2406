"""Search terms for a crawl: a balanced list of terms, chosen from captions and labels."""
