"""A server for the assistant, as OpenAI's clients know one (the extra ``serve``).

`requests` is what clients say, `media` where their videos are kept, `desk` who answers when, `app` the web server,
`page` the page for browsers, `searching` its search, `origins` what other sites' pages send.
"""
