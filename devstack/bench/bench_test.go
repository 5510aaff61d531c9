package bench

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	p, err := parseStat("4711 (a) name (x) S 12 1 1 0 -1 4194304 100 200 0 0 150 50 30 20 20 0 1 0 99 1 2\n")
	require.NoError(t, err)
	require.Equal(t, process{pid: 4711, parent: 12, state: 'S', used: 2500 * time.Millisecond}, p)
	for _, bad := range []string{"", "1 (x", "1 (x) S 2 3", "x (y) S 1 1 1 0 -1 4194304 100 200 0 0 150 50 30 20 20 0"} {
		_, err := parseStat(bad)
		require.Error(t, err, bad)
	}
}

func TestParseMachine(t *testing.T) {
	t.Parallel()
	busy, err := parseMachine("cpu  100 1 50 9999 777 3 2 4 0 0\ncpu0 1 2 3\n")
	require.NoError(t, err)
	require.Equal(t, 1600*time.Millisecond, busy)
	for _, bad := range []string{"", "cpu 1 2", "cpu  a 1 50 9999 777 3 2 4 0 0"} {
		_, err := parseMachine(bad)
		require.Error(t, err, bad)
	}
}

func TestTree(t *testing.T) {
	t.Parallel()
	all := map[int]process{1: {pid: 1}, 2: {pid: 2, parent: 1}, 3: {pid: 3, parent: 2}, 4: {pid: 4, parent: 1}, 5: {pid: 5, parent: 99}}
	require.Len(t, tree(all, 2), 2)
	require.Len(t, tree(all, 1), 4)
	require.Empty(t, tree(all, 7))
}

// What a child has used, and what an orphan of it has, is counted with its parent.
func TestUsage(t *testing.T) {
	t.Parallel()
	before, count, err := usage(os.Getpid())
	require.NoError(t, err)
	require.Positive(t, count)
	out, err := exec.Command("sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo done").Output()
	require.NoError(t, err)
	require.Equal(t, "done\n", string(out))
	after, _, err := usage(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, after, before)
	n, err := memory(os.Getpid())
	require.NoError(t, err)
	require.Positive(t, n)
	n, err = peakMemory(os.Getpid())
	require.NoError(t, err)
	require.Positive(t, n)
}

func TestMedian(t *testing.T) {
	t.Parallel()
	require.Equal(t, 3, median([]int{9, 1, 3}))
	require.Equal(t, 7, median([]int{7}))
}

func TestParseSizes(t *testing.T) {
	t.Parallel()
	sizes, err := ParseSizes("10000,500")
	require.NoError(t, err)
	require.Equal(t, []int{500, 10000}, sizes)
	for _, bad := range []string{"", "0", "5x", "5,,6", "-1"} {
		_, err := ParseSizes(bad)
		require.Error(t, err, bad)
	}
}

func TestParseReads(t *testing.T) {
	t.Parallel()
	reads, err := ParseReads("bench: putting 10 hosts\nbench: path=/api/v0/hosts clients=32 rate=40 bare_rate=50 ratio=0.80 p99_ms=900 bare_p99_ms=700\n")
	require.NoError(t, err)
	require.Equal(t, []Read{{Path: "/api/v0/hosts", Rate: 40, BareRate: 50, Ratio: 0.8, P99: 900 * time.Millisecond, BareP99: 700 * time.Millisecond}}, reads)
	_, err = ParseReads("bench: path=/x rate=many\n")
	require.ErrorContains(t, err, "many")
}

func TestMarks(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	at := func(ms int, kind enumspb.EventType) *historypb.HistoryEvent {
		return &historypb.HistoryEvent{EventType: kind, EventTime: timestamppb.New(begin.Add(time.Duration(ms) * time.Millisecond))}
	}
	started, taken, ended := marks([]*historypb.HistoryEvent{
		at(0, enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED),
		at(5, enumspb.EVENT_TYPE_ACTIVITY_TASK_STARTED), at(9, enumspb.EVENT_TYPE_ACTIVITY_TASK_STARTED),
		at(20, enumspb.EVENT_TYPE_ACTIVITY_TASK_COMPLETED), at(30, enumspb.EVENT_TYPE_ACTIVITY_TASK_COMPLETED),
		at(40, enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED),
	})
	require.Equal(t, begin, started)
	require.Equal(t, begin.Add(5*time.Millisecond), taken)
	require.Equal(t, begin.Add(30*time.Millisecond), ended)
}

func example() Report {
	return Report{
		Machine: Machine{Date: "2026-11-21", Commit: "abc", Cores: 2},
		FanOut: &FanOut{
			Hosts: 50, Rounds: 5, Missing: []string{"clush"}, Busy: 0.7,
			Figures: []Figure{
				{Name: "xargs-ssh", Title: "`xargs`", Wall: 3 * time.Second, Client: 4 * time.Second, Host: time.Second},
				{Name: nameOurs, Title: "Commissaire <&>", Ours: true, Wall: time.Second, Client: time.Second, Host: time.Second},
				{Name: nameGo, Title: "bare Go", Wall: 500 * time.Millisecond, Client: 100 * time.Millisecond, Host: time.Second},
				{Name: "broken", Title: "broken", Failure: "it said no"},
			},
		},
	}
}

func TestReportReplacesItsParts(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "docs/images"), 0o755))
	file := filepath.Join(root, docsFile)
	const doc = "before\n<!-- reads -->\nkept\n<!-- end of reads -->\nbetween\n<!-- fan-out -->\nformer\n<!-- end of fan-out -->\n<!-- simulated -->\n<!-- end of simulated -->\nafter\n"
	require.NoError(t, os.WriteFile(file, []byte(doc), 0o644))
	require.NoError(t, example().Write(root))
	require.NoError(t, example().Write(root)) // again, over itself
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, want := range []string{"before\n", "\nkept\n", "\nbetween\n", "\nafter\n", "not quiet", "left out: clush", "| `xargs` | 3.00 s |", "18.0 ms of a processor per host"} {
		require.Contains(t, string(text), want)
	}
	require.NotContains(t, string(text), "former")
	require.Less(t, strings.Index(string(text), "bare Go"), strings.Index(string(text), "Commissaire <&>"))
	require.Less(t, strings.Index(string(text), "`xargs`"), strings.Index(string(text), "broken"))
	plot, err := os.ReadFile(filepath.Join(root, plotFile))
	require.NoError(t, err)
	for d := xml.NewDecoder(strings.NewReader(string(plot))); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}
	}
	_, err = replacePart("nothing", "reads", "x")
	require.ErrorContains(t, err, "reads")
}
