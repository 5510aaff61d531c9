package simhost

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"commissaire/internal/hostos"
)

// What internal/remote puts around every script (conn.go and call.go there).
const (
	ready    = "\n@commissaire-ready@\n"
	finished = "\n@commissaire-end@\n"

	scriptHead = "{\n" + `printf '\n@commissaire-ready@\n'` + "\nexport LC_ALL=C\nset -- "
	scriptTail = "\n)\nset -- $?\n" + `printf '\n@commissaire-end@\n'` + "\n" +
		`printf '\n@commissaire-end@\n' >&2` + "\nexit $1" + scriptEnd
	scriptEnd = "\n} </dev/null\n"

	framesEnd = "exit\n} 9<&0 </dev/null\n" // of a script whose answer is in frames
)

var errShape = errors.New("not of the shape that internal/remote gives a script")

// unwrap gives the script and its arguments, and whether its answer is in frames.
func unwrap(stdin string) (args []string, script string, frames bool, err error) {
	rest, ok := strings.CutPrefix(stdin, scriptHead)
	if !ok {
		return nil, "", false, errShape
	}
	if args, rest, err = words(rest); err != nil {
		return nil, "", false, err
	}
	if script, frames = strings.CutSuffix(rest, framesEnd); frames {
		return args, script, true, nil
	}
	rest, ok = strings.CutPrefix(rest, "\n(\n")
	script, ok2 := strings.CutSuffix(rest, scriptTail)
	if !ok || !ok2 {
		return nil, "", false, errShape
	}
	return args, script, false, nil
}

// whole says whether all of a script has come. What comes behind one asks it to look
// again, which no run here is long enough for.
func whole(stdin string) bool {
	return strings.HasSuffix(stdin, scriptEnd) || strings.HasSuffix(stdin, framesEnd)
}

// words reads what remote.Quote wrote, up to what follows it.
func words(s string) (words []string, rest string, err error) {
	for strings.HasPrefix(s, "'") {
		var word strings.Builder
		for {
			part, after, ok := strings.Cut(s[1:], "'")
			if !ok {
				return nil, "", errShape
			}
			word.WriteString(part)
			if s = after; !strings.HasPrefix(s, `\''`) {
				break
			}
			word.WriteByte('\'')
			s = s[2:]
		}
		words = append(words, word.String())
		s = strings.TrimPrefix(s, " ")
	}
	return words, s, nil
}

// act is what a script does.
type act string

const (
	actFacts  act = "facts"   // of hostos
	actPulse  act = "pulse"   // of hostos
	actBootID act = "boot id" // Conn.BootID
	actRead   act = "read"    // Conn.Read
	actOnce   act = "once"    // Conn.Once
	actStart  act = "start"   // Conn.Start
	actStatus act = "status"  // Conn.Status
	actCancel act = "cancel"  // Conn.Cancel
	actForget act = "forget"  // Conn.Forget
)

// request is a recognised script.
type request struct {
	act  act
	argv []string // of a read, and of a command to run once
	// Of a once-only run:
	key         string // its directory on the host
	digest      string // of argv
	ifBoot      string
	from, limit int64 // of the output
}

// calls are what the script of a once-only run does with the functions that it
// defines before, by the last lines of the script.
var calls = []struct {
	act  act
	tail *regexp.Regexp
}{
	{actOnce, regexp.MustCompile(`^'\nc_want=([0-9a-f]{64}) c_time=[0-9]+\nc_start [A-Z0-9]+ wait\nc_follow "\$2" "\$3"\n$`)},
	{actStart, regexp.MustCompile(`^'\nc_want=([0-9a-f]{64}) c_time=[0-9]+\nc_start [A-Z0-9]+\nc_status\n$`)},
	{actStatus, regexp.MustCompile(`^c_status\n$`)},
	{actCancel, regexp.MustCompile(`^c_cancel "\$2"\nc_status\n$`)},
	{actForget, regexp.MustCompile(`^c_forget\nc_status\n$`)},
}

// recognise says what a script does. An error names what it is not.
func recognise(script string, args []string) (request, error) {
	tail := afterFunctions(script)
	switch {
	case script == hostos.FactsScript:
		return request{act: actFacts}, nil
	case script == hostos.PulseScript:
		return request{act: actPulse}, nil
	case script == `exec "$@"` && len(args) > 0:
		return request{act: actRead, argv: args}, nil
	case tail == `c_boot_id && printf '%s' "$c_now"`:
		return request{act: actBootID}, nil
	case strings.Contains(script, "\nc_open \"$1\"\n") && len(args) > 0:
		for _, c := range calls {
			if m := c.tail.FindStringSubmatch(tail); m != nil {
				r := request{act: c.act, key: args[0]}
				return r, r.complete(script, args, m)
			}
		}
	}
	return request{}, fmt.Errorf("%s with %d arguments", tail, len(args))
}

// complete reads what a command to run once needs more.
func (r *request) complete(script string, args, match []string) error {
	if r.act != actOnce && r.act != actStart {
		return nil
	}
	r.digest = match[1]
	_, text, ok := strings.Cut(script, "\nc_job_text='")
	if !ok {
		return errShape
	}
	job, _, err := words("'" + text)
	if err != nil || len(job) != 1 {
		return errShape
	}
	text, ok = strings.CutPrefix(job[0], "c_if_boot=")
	boot, text, err := words(text)
	if !ok || err != nil || len(boot) != 1 {
		return errShape
	}
	r.ifBoot = boot[0]
	text, ok = strings.CutPrefix(text, "\nset -- ")
	if r.argv, _, err = words(text); !ok || err != nil || len(r.argv) == 0 {
		return errShape
	}
	if r.act == actStart {
		return nil
	}
	if len(args) != 3 {
		return errShape
	}
	var err2 error
	r.from, err = strconv.ParseInt(args[1], 10, 64)
	r.limit, err2 = strconv.ParseInt(args[2], 10, 64)
	return errors.Join(err, err2)
}

// afterFunctions gives what a script does after it has defined its functions.
func afterFunctions(script string) string {
	const end = "\n}\n"
	if i := strings.LastIndex(script, end); i >= 0 {
		return script[i+len(end):]
	}
	return script
}
