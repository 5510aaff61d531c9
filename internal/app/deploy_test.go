package app

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"commissaire/internal/config"
)

type alert struct {
	Alert       string
	Expr        string
	For         string
	Labels      map[string]string
	Annotations map[string]string
}

func alerts(t *testing.T) (all []alert) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/prometheus/alerts.yml")
	require.NoError(t, err)
	var file struct{ Groups []struct{ Rules []alert } }
	require.NoError(t, yaml.Unmarshal(text, &file))
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	require.NotEmpty(t, all)
	return all
}

// TestAlertsHavePages: who is woken by an alert is told what it means and what to do.
func TestAlertsHavePages(t *testing.T) {
	t.Parallel()
	index, err := os.ReadFile("../../docs/alerts/README.md")
	require.NoError(t, err)
	pages, err := filepath.Glob("../../docs/alerts/Commissaire*.md")
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, a := range alerts(t) {
		require.False(t, seen[a.Alert], a.Alert)
		seen[a.Alert] = true
		require.Contains(t, []string{"critical", "warning", "info"}, a.Labels["severity"], a.Alert)
		require.NotEmpty(t, a.Annotations["summary"], a.Alert)
		require.NotEmpty(t, a.Annotations["description"], a.Alert)
		require.Equal(t, "https://commissaire.example/docs/alerts/"+a.Alert+".md", a.Annotations["runbook_url"])
		text, err := os.ReadFile("../../docs/alerts/" + a.Alert + ".md")
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(string(text), "# "+a.Alert+"\n"), a.Alert)
		for _, part := range []string{"## What it means", "## How to look", "## What to do"} {
			require.Contains(t, string(text), "\n"+part+"\n", a.Alert)
		}
		require.Contains(t, string(index), "["+a.Alert+"]("+a.Alert+".md) | "+a.Labels["severity"]+" |", "docs/alerts/README.md")
	}
	require.Len(t, pages, len(seen), "a page of no alert")
}

// metricName finds names of metrics in PromQL; labels have none of these beginnings.
var metricName = regexp.MustCompile(`\b(?:commissaire|process|go)_[a-z_]+\b|\bup\b`)

// fqName finds the name in the text of a description.
var fqName = regexp.MustCompile(`fqName: "(\w+)"`)

// TestMetricsExist: alerts and dashboards use only what server or worker exports.
func TestMetricsExist(t *testing.T) {
	t.Parallel()
	s := serveAPI(t, func(*config.Config) {})
	s.page(t)                            // requests are counted when they have ended
	known := map[string]bool{"up": true} // by Prometheus itself
	for line := range strings.Lines(s.page(t)) {
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(strings.TrimSpace(rest), " ")
			known[name] = true
			known[name+"_bucket"] = kind == "histogram"
		}
	}
	descs := make(chan *prometheus.Desc, 100) // also what has no value there
	(&vitals{}).Describe(descs)
	newUp().Describe(descs)
	(&watchGauge{}).Describe(descs)
	newWatchMetrics().Describe(descs) // of a worker
	close(descs)
	for d := range descs {
		name := fqName.FindStringSubmatch(d.String())[1]
		known[name] = true
		known[name+"_bucket"] = strings.HasSuffix(name, "_duration_seconds")
	}
	used := func(where, expr string) {
		names := metricName.FindAllString(expr, -1)
		require.NotEmpty(t, names, where)
		for _, name := range names {
			require.True(t, known[name], "%s: nothing exports %s", where, name)
		}
	}
	for _, a := range alerts(t) {
		used(a.Alert, a.Expr)
	}
	boards, err := filepath.Glob("../../deploy/grafana/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, boards)
	for _, path := range boards {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		var board struct {
			Title  string
			Panels []struct {
				ID      int
				Type    string
				Title   string
				GridPos struct{ H, W, X, Y int }
				Targets []struct{ Expr string }
			}
		}
		require.NoError(t, json.Unmarshal(text, &board), path)
		require.NotEmpty(t, board.Panels, path)
		ids := map[int]bool{}
		for _, p := range board.Panels {
			require.False(t, ids[p.ID], "%s: %s", path, p.Title)
			ids[p.ID] = true
			require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
			require.Equal(t, p.Type == "row", len(p.Targets) == 0, p.Title)
			for _, target := range p.Targets {
				used(path+": "+p.Title, target.Expr)
			}
		}
	}
}
