"""Does with user-data what cloud-init does: part handlers are known from the part
on that brings them, and are called at the begin, for each of their parts, and at
the end. Argument: the file with the user-data.
"""
import email
import sys
import types

handlers = []
with open(sys.argv[1]) as f:
    message = email.message_from_file(f)
for number, part in enumerate(message.get_payload()):
    kind, text = part.get_content_type(), part.get_payload(decode=True)
    if kind == "text/part-handler":
        handler = types.ModuleType("part_handler_%d" % number)
        exec(text, handler.__dict__)
        assert handler.handler_version == 2
        handler.handle_part(None, "__begin__", None, None, "once-per-instance")
        handlers.append(handler)
        continue
    for handler in handlers:
        if kind in handler.list_types():
            handler.handle_part(None, kind, part.get_filename(), text.decode(), "once-per-instance")
for handler in handlers:
    handler.handle_part(None, "__end__", None, None, "once-per-instance")
