"""Search terms for a crawl: captions and labels in, a balanced list of terms out."""
