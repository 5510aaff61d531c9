package fleet

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// Source is where facts of hosts come from, besides the hosts themselves.
type Source struct {
	Name    string
	Type    string        // what it is asked by, such as "http-json"
	Refresh time.Duration // how often it is asked without anybody's order, 0 for never
}

// MaxSourceName is how long the name of a source may be.
const MaxSourceName = 64

var (
	sourcePattern    = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]*[a-z0-9])?$`)
	osPattern        = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$`)
	osVersionPattern = regexp.MustCompile(`^[A-Za-z0-9._~+:-]{1,64}$`)
)

// ParseSource accepts the name of a source: small letters, digits and, between them, '-'
// and '_'.
func ParseSource(s string) (string, error) {
	if len(s) > MaxSourceName || !sourcePattern.MatchString(s) {
		return "", InvalidField("source", "must be small letters, digits and, between them, '-' and '_', at most %d", MaxSourceName)
	}
	return s, nil
}

// SourceFacts are what a source says of a host. What it does not say is nil.
type SourceFacts struct {
	OS        *string           `json:"os,omitempty"`         // ID of os-release(5)
	OSVersion *string           `json:"os_version,omitempty"` // VERSION_ID of os-release(5)
	CPUs      *int              `json:"cpus,omitempty"`
	Memory    *int              `json:"memory,omitempty"` // MiB
	Space     *int64            `json:"space,omitempty"`  // bytes
	Labels    map[string]string `json:"labels,omitempty"`
}

// Check refuses what no host can have. The error names the member.
func (f SourceFacts) Check() error {
	switch {
	case f.OS != nil && !osPattern.MatchString(*f.OS):
		return InvalidField("os", "must be an ID as in os-release(5), such as fedora: small letters, digits, '.', '_' and '-', at most 64")
	case f.OSVersion != nil && !osVersionPattern.MatchString(*f.OSVersion):
		return InvalidField("os_version", "must be a version of letters, digits and '.', '_', '~', '+', ':', '-', at most 64")
	case f.CPUs != nil && (*f.CPUs < 0 || *f.CPUs > math.MaxInt32):
		return InvalidField("cpus", "must be a number of processors")
	case f.Memory != nil && (*f.Memory < 0 || *f.Memory > math.MaxInt32):
		return InvalidField("memory", "must be a number of MiB")
	case f.Space != nil && *f.Space < 0:
		return InvalidField("space", "must be a number of bytes")
	}
	return CheckLabels(f.Labels)
}

// Over gives a host as it is when its source says f, and said before the last time. The
// labels that a source no longer says are gone; all others, and all other facts, stay.
func (f SourceFacts) Over(h Host, before SourceFacts) Host {
	overwrite(&h.OS, f.OS)
	overwrite(&h.OSVersion, f.OSVersion)
	overwrite(&h.CPUs, f.CPUs)
	overwrite(&h.Memory, f.Memory)
	overwrite(&h.Space, f.Space)
	labels := map[string]string{}
	for name, value := range h.Labels {
		if _, said := before.Labels[name]; !said {
			labels[name] = value
		}
	}
	maps.Copy(labels, f.Labels)
	h.Labels = labels
	return h
}

func overwrite[T any](to *T, value *T) {
	if value != nil {
		*to = *value
	}
}

// FactsDiff says how the facts of a host change, a line for each old and new value; ""
// when they do not.
func FactsDiff(before, after Host) (diff string) {
	line := func(mark, name, value string) { diff += fmt.Sprintf("%s %s: %s\n", mark, name, value) }
	change := func(name, old, now, none string) {
		if old == now {
			return
		}
		if old != none {
			line("-", name, old)
		}
		if now != none {
			line("+", name, now)
		}
	}
	change("os", before.OS, after.OS, "")
	change("os_version", before.OSVersion, after.OSVersion, "")
	change("cpus", strconv.Itoa(before.CPUs), strconv.Itoa(after.CPUs), "0")
	change("memory", strconv.Itoa(before.Memory), strconv.Itoa(after.Memory), "0")
	change("space", strconv.FormatInt(before.Space, 10), strconv.FormatInt(after.Space, 10), "0")
	names := slices.Sorted(maps.Keys(before.Labels))
	for _, name := range slices.Sorted(maps.Keys(after.Labels)) {
		if _, both := before.Labels[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		old, had := before.Labels[name]
		now, has := after.Labels[name]
		if had && (!has || old != now) {
			line("-", "labels."+name, old)
		}
		if has && (!had || old != now) {
			line("+", "labels."+name, now)
		}
	}
	return diff
}

// SyncCounts is what came of asking a source.
type SyncCounts struct {
	Changed int `json:"changed"` // hosts whose facts are others now, or would be after a dry run
	Same    int `json:"same"`
	Missing int `json:"missing"` // hosts with this source that it does not know
	// Strangers are hosts of the source that we do not have; More is how many were left
	// out of the list.
	Strangers []string `json:"strangers,omitempty"`
	More      int      `json:"more,omitempty"`
}

// BySchedule is who requests the syncs that nobody ordered. They come for ever, so their
// record has the hosts only that they change; the counts are those of all.
const BySchedule = "schedule"

// StepSync is the step of a host in a sync.
const StepSync = "sync"

// MaxStrangers is how many hosts of a source that we do not have are listed.
const MaxStrangers = 1000
