package contract

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// document is the list of facts.
const document = "../../docs/contract.md"

var update = flag.Bool("update", false, "write the names of the tests into "+document)

// row is a line of the document that states a fact: its id, what it says, and
// the test, or in the last section why it is for later.
var row = regexp.MustCompile(`^\| ((?:T|[0-9.]+)-[0-9]+) \| ([^|]+) \| ([^|]+) \|(?: ([^|]*?) ?\|)?$`)

// replays are the tests that ran, by the fact they replay.
var replays = struct {
	sync.Mutex
	of      map[string]map[string]bool // fact, test: whether it failed
	skipped map[string]bool            // facts that cannot be replayed here
}{of: map[string]map[string]bool{}, skipped: map[string]bool{}}

// fact runs the replay of facts, named by their ids with a space between.
func fact(t *testing.T, ids string, replay func(t *testing.T)) {
	t.Helper()
	t.Run(strings.ReplaceAll(ids, " ", "_"), func(t *testing.T) {
		ended := false     // else a helper that has the parent's t ended it
		t.Cleanup(func() { // the last one of the test
			replays.Lock()
			defer replays.Unlock()
			for id := range strings.FieldsSeq(ids) {
				if t.Skipped() {
					replays.skipped[id] = true
					continue
				}
				if replays.of[id] == nil {
					replays.of[id] = map[string]bool{}
				}
				replays.of[id][t.Name()] = t.Failed() || !ended
			}
		})
		replay(t)
		ended = true
	})
}

// account compares the document with what ran, and writes the sum to w.
func account(w io.Writer) (ok bool, err error) {
	text, err := os.ReadFile(document)
	if err != nil {
		return false, err
	}
	replays.Lock()
	defer replays.Unlock()
	var complaints []string
	complain := func(format string, args ...any) { complaints = append(complaints, fmt.Sprintf(format, args...)) }
	facts, later, covered, failed := map[string]bool{}, 0, 0, 0
	put, inLater := false, false
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "## ") {
			inLater = line == "## Later"
		}
		m := row.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		id, tests := m[1], replays.of[m[1]]
		if facts[id] {
			complain("fact %s is there twice", id)
		}
		facts[id] = true
		if inLater {
			later++
			if tests != nil {
				complain("fact %s is for later, but has a test", id)
			}
			continue
		}
		if len(tests) == 0 && replays.skipped[id] {
			fmt.Fprintf(w, "fact %s cannot be replayed here; go test -v says why\n", id)
			continue
		}
		if len(tests) == 0 {
			complain("fact %s has no test that ran: %s", id, m[2])
			continue
		}
		covered++
		names := slices.Sorted(maps.Keys(tests))
		if slices.Contains(slices.Collect(maps.Values(tests)), true) {
			failed++
		}
		if cell := "`" + strings.Join(names, "`, `") + "`"; cell != m[4] {
			if !*update {
				complain("fact %s is tested by %s, the document says %q (go test ./contract -update writes it)", id, cell, m[4])
			}
			lines[i] = fmt.Sprintf("| %s | %s | %s | %s |", id, m[2], m[3], cell)
			put = true
		}
	}
	for id := range replays.of {
		if !facts[id] {
			complain("test for fact %s, which is not in the document", id)
		}
	}
	if *update && put {
		if err := os.WriteFile(document, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
			return false, err
		}
	}
	slices.Sort(complaints)
	for _, c := range complaints {
		fmt.Fprintln(w, c)
	}
	fmt.Fprintf(w, "contract: %d more facts are for later, docs/contract.md says which and why\n", later)
	fmt.Fprintf(w, "contract: facts=%d covered=%d failed=%d\n", len(facts)-later, covered, failed)
	return len(complaints) == 0 && failed == 0, nil
}
