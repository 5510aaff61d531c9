package remote

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

//go:embed script/*.sh
var scripts embed.FS

// The scripts that run on the host.
var (
	hostLibrary  = script("host")
	runnerScript = script("runner")
	startScript  = script("start")
	followScript = script("follow")
	cancelScript = script("cancel")
	forgetScript = script("forget")
	fileScript   = script("file")
)

// comment is a line of nothing else, or what follows code in a line.
var comment = regexp.MustCompile(`(?m)^ *#.*\n|[ \t]+# .*$|^ +`)

// script is one without what only people read: hosts parse it in every session.
func script(name string) string {
	text, err := scripts.ReadFile("script/" + name + ".sh")
	if err != nil {
		panic(err) // it is part of the program
	}
	return strings.ReplaceAll(comment.ReplaceAllString(string(text), ""), "\n\n", "\n")
}

// Command is what to run once, as root, with stdin from /dev/null, in /, with
// the login's environment, LC_ALL=C and COMMISSAIRE_RUN, which is the path of the
// run's directory on the host.
type Command struct {
	Key      Key
	Argv     []string
	IfBootID string // run only in this boot of the host; "" for any
	Limits   Limits
}

// Limits bound what is brought over from the host.
type Limits struct {
	Head int64 // output beyond so many bytes is left out, but for its last 64 KiB; 0: no limit
}

func (l Limits) head() int64 {
	if l.Head <= 0 {
		return math.MaxInt64
	}
	return l.Head
}

// Sink takes what a run prints. Its methods are called one at a time, and not
// after Once has returned.
type Sink interface {
	// Output stores the bytes that stand at offset and says from where to go on:
	// offset+len(data), or another offset if somebody else has stored more. data
	// is valid during the call only. An error ends Once with that error.
	Output(offset int64, data []byte) (next int64, err error)
	// Alive is called about every 2 s while the run lives and prints nothing.
	Alive()
}

// State says where a run is.
type State string

// The states of a run.
const (
	// Absent: nobody has started it.
	Absent State = "absent"
	// Running: claimed, and a process of it lives.
	Running State = "running"
	// Exited: its exit code is known.
	Exited State = "exited"
	// Indeterminate: claimed, no process of it lives, and there is no exit code.
	// How far it came is for the step's own probe to find out.
	Indeterminate State = "indeterminate"
	// BootIDChanged: it was not run, since the host was in another boot.
	BootIDChanged State = "boot-id-changed"
	// Cancelled: it was cancelled before anybody had started it, and will not run.
	Cancelled State = "cancelled"
)

// Status is what the host knows of a run.
type Status struct {
	State      State
	Told       bool      // Cancel told it to end before it had: its end may be its answer to that
	ExitCode   int       // when Exited; 128+n when signal n ended it
	OutputSize int64     // bytes printed, when it has ended
	Reason     string    // when Indeterminate, a sentence
	Started    time.Time // when it was claimed, by the clock of who started it, to the second
	BootID     string    // of the boot in which it was claimed
	BootIDNow  string    // of the host's present boot
	ArgvDigest string    // SHA-256 of the argv with which it was claimed
}

// Outcome is how a run ended.
type Outcome struct {
	Status
	Tail       []byte // the last 64 KiB at most of what was left out beyond Limits.Head
	TailOffset int64
}

// Once runs the command on the host unless its key was ever claimed there, and
// else attaches to that run. Either way it brings the output from byte from on to
// the sink and waits for the end. It may be called again and again, by several at
// once, after any error and from any machine: the command runs at most once, and
// the bytes are the same.
//
// An error means that the end was not seen, not that the command failed.
func (c *Conn) Once(ctx context.Context, cmd Command, from int64, sink Sink) (Outcome, error) {
	for {
		o, next, err := c.once(ctx, cmd, from, sink)
		if err != nil || next < 0 {
			return o, err
		}
		from = next
	}
}

// once is one session; next is the offset to start another one from, or -1.
func (c *Conn) once(ctx context.Context, cmd Command, from int64, sink Sink) (o Outcome, next int64, err error) {
	if from < 0 {
		return o, -1, fmt.Errorf("offset %d is negative", from)
	}
	start, err := startText(cmd, true)
	if err != nil {
		return o, -1, err
	}
	f, err := c.frames(ctx, start+"c_follow \"$2\" \"$3\"\n", cmd.Key,
		strconv.FormatInt(from, 10), strconv.FormatInt(cmd.Limits.head(), 10))
	if err != nil {
		return o, -1, err
	}
	defer f.close()
	if !c.spawn(f.ask) {
		return o, -1, c.fail(Lost, errors.New("the connection is closed"))
	}
	return f.follow(sink)
}

// Attach follows a run as Once does, from byte from on, but never starts it. A run
// that nobody has started is Absent.
func (c *Conn) Attach(ctx context.Context, key Key, limits Limits, from int64, sink Sink) (Outcome, error) {
	const script = `if c_claimed; then c_follow "$2" "$3"; else echo "N $c_now"; fi` + "\n"
	for {
		f, err := c.frames(ctx, followScript+script, key, strconv.FormatInt(from, 10), strconv.FormatInt(limits.head(), 10))
		if err != nil {
			return Outcome{}, err
		}
		o, next, err := f.follow(sink)
		f.close()
		if err != nil || next < 0 {
			return o, err
		}
		from = next
	}
}

// Start starts the command unless its key was ever claimed on the host, and does
// not wait for its end: for what takes the connection away, such as a reboot.
func (c *Conn) Start(ctx context.Context, cmd Command) (Status, error) {
	start, err := startText(cmd, false)
	if err != nil {
		return Status{}, err
	}
	return c.status(ctx, start+"c_status\n", cmd.Key)
}

// Status looks at a run without starting it.
func (c *Conn) Status(ctx context.Context, key Key) (Status, error) {
	return c.status(ctx, followScript+"c_status\n", key)
}

// Cancel sends TERM to every process of the run, after grace KILL, and returns
// when none is left. A run that nobody has started is marked so that nobody can.
// How it ended is for Once or Status to say.
func (c *Conn) Cancel(ctx context.Context, key Key, grace time.Duration) error {
	_, err := c.status(ctx, followScript+cancelScript+"c_cancel \"$2\"\nc_status\n", key,
		strconv.FormatInt(max(0, grace.Milliseconds()), 10))
	return err
}

// Forget drops the output of a run that has ended, because it is stored
// elsewhere. The host keeps that it ran and how it ended for another 7 days, so
// that a caller that was thought dead cannot start it again.
func (c *Conn) Forget(ctx context.Context, key Key) error {
	_, err := c.status(ctx, followScript+forgetScript+"c_forget\nc_status\n", key)
	return err
}

func (c *Conn) status(ctx context.Context, script string, key Key, args ...string) (Status, error) {
	f, err := c.frames(ctx, script, key, args...)
	if err != nil {
		return Status{}, err
	}
	defer f.close()
	o, _, err := f.follow(nil)
	return o.Status, err
}

// startText is the script that starts cmd. With wait the host's shell stays until the
// command has ended, or asks.
func startText(cmd Command, wait bool) (string, error) {
	if err := checkArgv(cmd.Argv); err != nil {
		return "", err
	}
	if err := checkWords([]string{cmd.IfBootID}); err != nil {
		return "", errors.New("the boot id holds a NUL byte")
	}
	how := ""
	if wait {
		how = " wait"
	}
	return followScript + startScript +
		"c_job_text=" + Quote("c_if_boot="+Quote(cmd.IfBootID)+"\nset -- "+Quote(cmd.Argv...)) +
		"\nc_runner=" + Quote(runnerScript) +
		"\nc_want=" + digest(cmd.Argv) + " c_time=" + strconv.FormatInt(time.Now().Unix(), 10) +
		"\nc_start " + rand.Text() + how + "\n", nil
}

// frames runs a script that answers in frames. $1 is the key's directory name,
// $2 and on are the arguments.
func (c *Conn) frames(ctx context.Context, script string, key Key, args ...string) (*frames, error) {
	// The starter hands the library on to the runner.
	library := "c_lib=" + Quote(hostLibrary) + "\neval \"$c_lib\"\n"
	call, err := c.call(ctx, wrapFrames(library+"c_open \"$1\"\n"+script, append([]string{key.name()}, args...)))
	if err != nil {
		return nil, err
	}
	return &frames{call: call}, nil
}
