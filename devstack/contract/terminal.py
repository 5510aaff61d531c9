"""Runs a program on a terminal of its own and answers its questions.

Arguments: JSON list of [question, answer, hidden], program, its arguments. Prints
what was on the screen; an answer to a hidden question is typed only once the
terminal does not echo.
"""
import json
import os
import pty
import sys
import termios
import time

questions = json.loads(sys.argv[1])
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[2], sys.argv[2:])
screen = b""
while True:
    try:
        some = os.read(terminal, 4096)
    except OSError:  # it is closed
        break
    screen += some
    if questions and screen.rstrip().endswith(questions[0][0].encode().rstrip()):
        question, answer, hidden = questions.pop(0)
        end = time.time() + 60  # the machine may be busy
        while hidden and termios.tcgetattr(terminal)[3] & termios.ECHO:
            if time.time() > end:
                sys.exit("the terminal echoes: " + question)
            time.sleep(0.01)
        os.write(terminal, answer.encode() + b"\n")
sys.stdout.write(screen.decode().replace("\r\n", "\n"))
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
