package bench

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The file of the results, and its plot, in the repository.
const (
	docsFile = "docs/benchmarks.md"
	plotFile = "docs/images/benchmarks.svg"
)

// Report is all that was measured; a part that was not is nil.
type Report struct {
	Machine   Machine
	Reads     []Read
	FanOut    *FanOut
	Simulated []Simulated
}

// Read is what the comparison of reads says of one path.
type Read struct {
	Path           string
	Rate, BareRate float64 // requests per second
	Ratio          float64
	P99, BareP99   time.Duration
}

var readLine = regexp.MustCompile(`(?m)^bench: (path=.*)$`)

// ParseReads finds the results among what Reads has printed.
func ParseReads(text string) (all []Read, err error) {
	for _, m := range readLine.FindAllStringSubmatch(text, -1) {
		values := map[string]string{}
		for _, field := range strings.Fields(m[1]) {
			name, value, _ := strings.Cut(field, "=")
			values[name] = value
		}
		r := Read{Path: values["path"]}
		number := func(name string) float64 {
			f, e := strconv.ParseFloat(values[name], 64)
			if e != nil && err == nil {
				err = fmt.Errorf("%s: %w", m[0], e)
			}
			return f
		}
		r.Rate, r.BareRate, r.Ratio = number("rate"), number("bare_rate"), number("ratio")
		r.P99 = time.Duration(number("p99_ms")) * time.Millisecond
		r.BareP99 = time.Duration(number("bare_p99_ms")) * time.Millisecond
		all = append(all, r)
	}
	return all, err
}

// Write puts what was measured into docs/benchmarks.md and its plot, below root. What was
// not measured stays as it is there.
func (r Report) Write(root string) error {
	file := filepath.Join(root, docsFile)
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	doc := string(text)
	for _, part := range []struct{ name, text string }{{"reads", r.readsText()}, {"fan-out", r.fanOutText()}, {"simulated", r.simulatedText()}} {
		if part.text == "" {
			continue
		}
		if doc, err = replacePart(doc, part.name, part.text); err != nil {
			return fmt.Errorf("%s: %w", docsFile, err)
		}
	}
	if r.FanOut != nil {
		plot := filepath.Join(root, plotFile)
		if err := os.WriteFile(plot, []byte(r.FanOut.plot(r.Machine)), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(file, []byte(doc), 0o644)
}

// replacePart replaces what stands between the marks of a part.
func replacePart(doc, name, text string) (string, error) {
	begin, end := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->"
	before, rest, ok := strings.Cut(doc, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return "", fmt.Errorf("has no marks of %s", name)
	}
	return before + begin + "\n" + strings.TrimSpace(text) + "\n\n" + end + after, nil
}

// quietShare is how much of a processor other programs may have while times mean
// something.
const quietShare = 0.1

// when says when and where a part was measured, and whether to trust its times.
func (r Report) when(busy float64) string {
	line := fmt.Sprintf("Measured on %s, commit %s, on %s.", r.Machine.Date, r.Machine.Commit, r.Machine)
	if busy > quietShare {
		line += fmt.Sprintf(" **The machine was not quiet: other programs had %.1f processors meanwhile.** Times are too long; processor time holds.", busy)
	}
	return line + "\n\n"
}

func (r Report) readsText() string {
	if len(r.Reads) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString(r.when(0))
	b.WriteString("| path | requests/s | bare handler | ratio | p99 | bare p99 |\n|---|---|---|---|---|---|\n")
	for _, one := range r.Reads {
		fmt.Fprintf(&b, "| `%s` | %.0f | %.0f | %.2f | %d ms | %d ms |\n", one.Path, one.Rate, one.BareRate, one.Ratio, one.P99.Milliseconds(), one.BareP99.Milliseconds())
	}
	return b.String()
}

func (r Report) fanOutText() string {
	if r.FanOut == nil {
		return ""
	}
	f := r.FanOut
	var b strings.Builder
	b.WriteString(r.when(f.Busy))
	if len(f.Missing) > 0 {
		fmt.Fprintf(&b, "Not installed, so left out: %s.\n\n", strings.Join(f.Missing, ", "))
	}
	ours := f.figure(nameOurs)
	for _, warm := range []bool{false, true} {
		title := "with a login on every host"
		if warm {
			title = "over connections that were open already"
		}
		fmt.Fprintf(&b, "| %d hosts, %s (medians of %d rounds) | wall | least to most | client CPU | CPU of all hosts |", f.Hosts, title, f.Rounds)
		rule := "\n|---|---|---|---|---|"
		if ours != nil && !warm {
			b.WriteString(" Commissaire's wall, CPU to it |")
			rule += "---|"
		}
		b.WriteString(rule + "\n")
		for _, one := range f.byWall(warm) {
			name := one.Title
			if one.Ours {
				name = "**" + name + "**"
			}
			if one.Failure != "" {
				reason, _, _ := strings.Cut(one.Failure, "\n")
				fmt.Fprintf(&b, "| %s | failed: %s | | | |", name, reason)
				if ours != nil && !warm {
					b.WriteString(" |")
				}
				b.WriteByte('\n')
				continue
			}
			fmt.Fprintf(&b, "| %s | %.2f s | %.2f to %.2f s | %.2f s | %.2f s |", name, one.Wall.Seconds(), one.Least.Seconds(), one.Most.Seconds(), one.Client.Seconds(), one.Host.Seconds())
			if ours != nil && !warm {
				fmt.Fprintf(&b, " %.2f, %.2f |", ours.Wall.Seconds()/one.Wall.Seconds(), ours.Client.Seconds()/one.Client.Seconds())
			}
			b.WriteByte('\n')
		}
		b.WriteByte('\n')
	}
	if ours == nil {
		return b.String()
	}
	b.WriteString(f.partsText(ours))
	return b.String()
}

// byWall are the figures with or without open connections, the fastest first and those
// that failed last.
func (f FanOut) byWall(warm bool) []Figure {
	var all []Figure
	for _, one := range f.Figures {
		if one.Warm == warm {
			all = append(all, one)
		}
	}
	slices.SortStableFunc(all, func(a, b Figure) int {
		if c := cmp.Compare(len(a.Failure), len(b.Failure)); c != 0 && (a.Failure == "" || b.Failure == "") {
			return c
		}
		return cmp.Compare(a.Wall, b.Wall)
	})
	return all
}

// partsText says where the product's time goes.
func (f FanOut) partsText(ours *Figure) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Where Commissaire's time goes (medians; %d events, %d bytes of workflow history):\n\n| phase | ms |\n|---|---|\n", f.Timeline.Events, f.Timeline.HistoryBytes)
	for _, phase := range phases {
		fmt.Fprintf(&b, "| %s | %d |\n", phaseTitles[phase], f.Timeline.Phases[phase].Milliseconds())
	}
	fmt.Fprintf(&b, "| **all, by the client** (by the record: %d) | %d |\n\n| processor time | ms |\n|---|---|\n", f.Timeline.Wall.Milliseconds(), f.Timeline.Client.Milliseconds())
	for _, part := range productParts {
		fmt.Fprintf(&b, "| %s | %d |\n", part, f.Parts[part].Milliseconds())
	}
	fmt.Fprintf(&b, "| **all** | %d |\n\n", ours.Client.Milliseconds())
	for _, name := range sortedKeys(f.Statements) {
		if s := f.Statements[name]; s.Calls > 0 && name != "postgres" {
			fmt.Fprintf(&b, "* Database `%s`: %d statements, %.1f ms in all.\n", name, s.Calls, float64(s.Time.Microseconds())/1000)
		}
	}
	if bare := f.figure(nameGo); bare != nil {
		perHost := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(f.Hosts) }
		fmt.Fprintf(&b, "* Over bare Go: %.1f ms of a processor per host at the client's side, %.1f ms at the host.\n", perHost(ours.Client-bare.Client), perHost(ours.Host-bare.Host))
	}
	if f.Orders > 0 {
		fmt.Fprintf(&b, "* From an order for one host to its answer on record, at rest, login included: %d ms (median of %d).\n", f.FirstAnswer.Milliseconds(), f.Orders)
	}
	return b.String()
}

func (r Report) simulatedText() string {
	if len(r.Simulated) == 0 {
		return ""
	}
	busy := 0.0
	for _, s := range r.Simulated {
		busy = max(busy, s.Busy)
	}
	var b strings.Builder
	b.WriteString(r.when(busy))
	b.WriteString("| hosts | wall by record | by client | worker, at most | all parts, at most | history | database | Temporal's | CPU: API, worker, Temporal, Postgres | CPU of the simulation |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, s := range r.Simulated {
		if s.Failure != "" {
			reason, _, _ := strings.Cut(s.Failure, "\n")
			fmt.Fprintf(&b, "| %d | failed: %s |%s\n", s.Hosts, reason, strings.Repeat(" |", 8))
			continue
		}
		var parts []string
		for _, part := range productParts {
			parts = append(parts, fmt.Sprintf("%.1f", s.Parts[part].Seconds()))
		}
		fmt.Fprintf(&b, "| %d | %.1f s | %.1f s | %d MiB | %d MiB | %d events, %d KiB | %.1f MiB | %.1f MiB | %s s | %.1f s |\n", s.Hosts, s.Wall.Seconds(), s.Client.Seconds(), s.Worker>>20, s.Stack>>20,
			s.Events, s.HistoryBytes>>10, float64(s.Database)/(1<<20), float64(s.TemporalData)/(1<<20), strings.Join(parts, ", "), s.Simulation.Seconds())
	}
	return b.String()
}
