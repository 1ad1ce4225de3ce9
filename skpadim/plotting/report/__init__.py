"""The report: images scored and made small, what is said of them, and the page that shows it."""
