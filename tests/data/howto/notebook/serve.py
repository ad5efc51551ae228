"""Answers what a page asks, on a port of its own."""

from http.server import HTTPServer, SimpleHTTPRequestHandler

HTTPServer(("127.0.0.1", 18421), SimpleHTTPRequestHandler).serve_forever()
