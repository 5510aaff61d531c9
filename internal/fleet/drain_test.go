package fleet

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestDrainsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		drain  Drain
		blamed string // "" is fine
	}{
		"nothing given":            {Drain{}, ""},
		"disabled":                 {Drain{Disabled: true}, ""},
		"the shortest":             {Drain{Timeout: Duration(time.Second), GracePeriod: Lasting(0)}, ""},
		"the longest":              {Drain{Timeout: Duration(MaxDuration), GracePeriod: Lasting(MaxDuration), SkipWaitForDelete: Duration(MaxDuration)}, ""},
		"skip by labels":           {Drain{Skip: "app in (a,b),tier!=db,pinned"}, ""},
		"no time to drain":         {Drain{Timeout: Duration(time.Second - 1)}, "timeout"},
		"time runs backwards":      {Drain{Timeout: -Duration(time.Minute)}, "timeout"},
		"for ever":                 {Drain{Timeout: Duration(MaxDuration) + 1}, "timeout"},
		"less than no grace":       {Drain{GracePeriod: Lasting(-time.Second)}, "grace_period"},
		"grace for ever":           {Drain{GracePeriod: Lasting(MaxDuration + time.Second)}, "grace_period"},
		"grace of half a second":   {Drain{GracePeriod: Lasting(1500 * time.Millisecond)}, "grace_period"},
		"gone before it was there": {Drain{SkipWaitForDelete: -1}, "skip_wait_for_delete_timeout"},
		"gone too long":            {Drain{SkipWaitForDelete: Duration(MaxDuration) + 1}, "skip_wait_for_delete_timeout"},
		"no selector":              {Drain{Skip: "app in ("}, "skip"},
		"checked though disabled":  {Drain{Disabled: true, Skip: "="}, "skip"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := Policy{Drain: &c.drain}.Check("policy")
			if c.blamed == "" {
				require.NoError(t, err)
				return
			}
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, Invalid, e.Kind)
			require.Equal(t, "policy.drain."+c.blamed, e.Fields[0].Field)
		})
	}
}

// What a policy says of drains comes back from the record as it was, and replaces what
// the cluster says as a whole.
func TestDrainsComeBackFromTheRecord(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		seconds := func(name string) Duration {
			return Duration(rapid.IntRange(0, 1000).Draw(t, name)) * Duration(time.Second)
		}
		flag := func(name string) bool { return rapid.Bool().Draw(t, name) }
		d := Drain{Disabled: flag("disabled"), Timeout: seconds("timeout"), DeleteEmptyDirData: flag("emptyDir"), Force: flag("force"),
			Skip: rapid.SampledFrom([]string{"", "app=a", "tier!=db,rack in (a,b)"}).Draw(t, "skip"), SkipWaitForDelete: seconds("skip wait")}
		if flag("grace given") {
			g := seconds("grace")
			d.GracePeriod = &g
		}
		if flag("daemon sets given") {
			ignore := flag("daemon sets")
			d.IgnoreDaemonSets = &ignore
		}
		p := Policy{Drain: &d}
		require.NoError(t, p.Check("policy"))
		text, err := json.Marshal(p)
		require.NoError(t, err)
		var back Policy
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, p, back)

		cluster := Policy{Drain: &Drain{Force: true, Skip: "x=y"}, MaxUnavailable: Count(3)}
		require.Equal(t, Policy{Drain: &d, MaxUnavailable: Count(3)}, p.Over(cluster))
		require.Equal(t, cluster, Policy{}.Over(cluster))
	})
}

func TestFindingsReadAsSentences(t *testing.T) {
	t.Parallel()
	f := Finding{Cause: "budget", Object: "budget shop/web", Detail: "allows no disruption now", Blocks: true, Passes: true}
	require.Equal(t, "budget shop/web allows no disruption now", f.String())
}

func TestWhichCordonsStand(t *testing.T) {
	t.Parallel()
	for c, want := range map[Cordon]bool{CordonNone: false, CordonOut: true, CordonRestoring: true, CordonRestored: false, CordonLeft: false} {
		require.Equal(t, want, c.Stands(), c)
	}
}
