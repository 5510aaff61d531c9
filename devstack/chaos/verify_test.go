package chaos

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"commissaire/internal/remote/remotetest"
)

func TestEffectNamesWhatACommandDid(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-y -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold --with-new-pkgs upgrade": "apt-get upgrade",
		"": "apt-get",
	} {
		require.Equal(t, want, effect(remotetest.Entry{What: "apt-get", Args: args}))
	}
	require.Equal(t, "dnf update", effect(remotetest.Entry{What: "dnf", Args: "--setopt=exit_on_lock=True update -y"}))
	require.Equal(t, "uname -a", effect(remotetest.Entry{What: "uname", Args: "-a"}))
}

// What a ledger has too little, too much and too many at once is found.
func TestLedgersAreComparedWithTheOrder(t *testing.T) {
	t.Parallel()
	a, b, c := new(remotetest.Host), new(remotetest.Host), new(remotetest.Host)
	var w want
	w.effects = map[string]int{}
	w.reboots()
	o := order{wants: map[*remotetest.Host]want{a: w, b: w, c: w}}
	at := func(second int, what, args string) remotetest.Entry {
		return remotetest.Entry{Time: time.Unix(int64(second), 0), What: what, Args: args}
	}
	trip := func(down, up int) []remotetest.Entry {
		return []remotetest.Entry{at(down, "systemctl", "reboot"), at(up, "boot", "")}
	}
	for name, test := range map[string]struct {
		after ledgers
		want  Finding
	}{
		"good":     {ledgers{a: trip(1, 3), b: trip(2, 5), c: trip(4, 6)}, Finding{}},
		"too many": {ledgers{a: trip(1, 4), b: trip(2, 5), c: trip(3, 6)}, Finding{Leaked: 1}},
		"twice":    {ledgers{a: append(trip(1, 2), trip(3, 4)...), b: trip(5, 6), c: trip(7, 8)}, Finding{Duplicated: 2}},
		"not":      {ledgers{a: nil, b: trip(5, 6), c: trip(7, 8)}, Finding{Lost: 2}},
		"other":    {ledgers{a: append(trip(1, 2), at(3, "dnf", "remove bash")), b: trip(5, 6), c: trip(7, 8)}, Finding{Duplicated: 1}},
	} {
		var f Finding
		verifyLedgers(o, ledgers{}, test.after, &f)
		f.Notes = nil
		require.Equal(t, test.want, f, name)
	}
}

func TestPointsOfOccurrences(t *testing.T) {
	t.Parallel()
	k := kind{name: "restart"}
	seen := occurrences{"host.check": 3, workflowTask: 6, "rare": 1}.least(occurrences{"host.check": 2, workflowTask: 5})
	require.Equal(t, occurrences{"host.check": 2, workflowTask: 5}, seen)
	var texts []string
	for _, p := range seen.points(k) {
		texts = append(texts, p.String())
	}
	require.Len(t, texts, 2*len(everywhere)+len(somewhere)+4)
	require.Contains(t, texts, "restart host.check:effect:2")
	require.Contains(t, texts, "restart workflow-task:report:5")
}
