package simhost

import (
	"bytes"
	"fmt"
	"time"
)

// run is a claimed run, as in a directory under /var/lib/commissaire/runs. It
// outlives reboots. Commands end at once, so there is none without an end.
type run struct {
	digest string // of its argv, or "cancelled"
	boot   string // in which it was claimed
	start  int64  // seconds since 1970
	out    []byte
	end    string // what rc holds
}

// mostLeftOut is how much is sent of output beyond the limit: its end, in bytes.
const mostLeftOut = 64 << 10

// perform answers a recognised script.
func (h *Host) perform(r request) answer {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch r.act {
	case actFacts:
		return answer{stdout: h.facts()}
	case actPulse:
		return answer{stdout: []byte("boot_id=" + h.bootID + "\nsystem=running\n")}
	case actBootID:
		return answer{stdout: []byte(h.bootID)}
	case actRead:
		out, code := h.command(r.argv)
		return answer{stdout: out, code: code}
	default:
		return answer{stdout: h.once(r)}
	}
}

// once answers for a once-only run in the frames of internal/remote (see
// script/follow.sh there). The caller holds mu.
func (h *Host) once(r request) []byte {
	var b bytes.Buffer
	claimed := h.runs[r.key]
	switch r.act {
	case actOnce, actStart:
		if claimed == nil {
			claimed = h.claim(r)
		}
		if claimed.digest != r.digest && claimed.digest != cancelled {
			fmt.Fprintf(&b, "X conflict the key %s was used for another command \n", r.key)
			return b.Bytes()
		}
	case actCancel:
		if claimed == nil {
			claimed = &run{digest: cancelled, boot: h.bootID, start: time.Now().Unix(), end: cancelled}
			h.runs[r.key] = claimed
		}
	case actForget:
		if claimed != nil {
			claimed.out = nil
		}
	}
	if claimed == nil {
		fmt.Fprintf(&b, "N %s\n", h.bootID)
		return b.Bytes()
	}
	fmt.Fprintf(&b, "R %s %s %s %d\n", claimed.digest, claimed.boot, h.bootID, claimed.start)
	if r.act == actOnce {
		claimed.send(&b, r.from, r.limit)
	}
	fmt.Fprintf(&b, "E %s\n", claimed.end)
	return b.Bytes()
}

// cancelled is digest and end of a run that was cancelled before it began.
const cancelled = "cancelled"

// claim runs the command, if the host is still in the right boot. The caller
// holds mu.
func (h *Host) claim(r request) *run {
	c := &run{digest: r.digest, boot: h.bootID, start: time.Now().Unix()}
	h.runs[r.key] = c
	if r.ifBoot != "" && r.ifBoot != h.bootID {
		c.end = "boot " + h.bootID
		return c
	}
	var code int
	c.out, code = h.command(r.argv)
	c.end = fmt.Sprintf("exit %d %d %d", code, len(c.out), time.Now().Unix())
	return c
}

// send writes the output from an offset on, and its end if there is a limit
// before it. Output is short enough for one frame of each.
func (c *run) send(b *bytes.Buffer, from, limit int64) {
	size := int64(len(c.out))
	if until := min(size, limit); from < until {
		fmt.Fprintf(b, "O %d %d\n%s", from, until-from, c.out[from:until])
		from = until
	}
	if from = max(from, size-mostLeftOut); from < size {
		fmt.Fprintf(b, "T %d %d\n%s", from, size-from, c.out[from:])
	}
}
