package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// readPolicy reads a policy and checks it, as a request has it.
func readPolicy(text []byte) (p Policy, err error) {
	if err := json.Unmarshal(text, &p); err != nil {
		return p, err
	}
	return p, p.Check("policy")
}

func TestPoliciesAreChecked(t *testing.T) {
	t.Parallel()
	p, err := readPolicy([]byte(`{"max_unavailable": "10%", "max_failures": 5, "host_timeout": "1h30m", "min_ready": 90,
		"canary": {"hosts": 2, "then": "approve", "soak": "10m"}, "order": {"by": "random", "seed": 7}, "selector": "env=prod",
		"reboot": "always", "window": {"days": ["sat"], "start": "22:00", "end": "04:00", "time_zone": "Europe/Berlin"}}`))
	require.NoError(t, err)
	require.Equal(t, 10, p.Slots(100))
	require.Equal(t, 5, p.FailuresAllowed(100))
	require.Equal(t, Duration(90*time.Minute), *p.HostTimeout)
	require.Equal(t, Duration(90*time.Second), *p.MinReady)
	text, err := json.Marshal(p)
	require.NoError(t, err)
	again, err := readPolicy(text)
	require.NoError(t, err)
	require.Equal(t, p, again, "it reads what it writes")

	for body, field := range map[string]string{
		`{"max_unavailable": 0}`:                        "policy.max_unavailable",
		`{"max_unavailable": "0%"}`:                     "policy.max_unavailable",
		`{"canary": {}}`:                                "policy.canary",
		`{"canary": {"hosts": 1, "selector": "a=b"}}`:   "policy.canary",
		`{"canary": {"hosts": 0}}`:                      "policy.canary",
		`{"canary": {"hosts": 1, "then": "party"}}`:     "policy.canary",
		`{"order": {"by": "mood"}}`:                     "policy.order.by",
		`{"order": {"by": "label"}}`:                    "policy.order.label",
		`{"selector": "env in"}`:                        "policy.selector",
		`{"selector": "=prod"}`:                         "policy.selector",
		`{"host_timeout": "1s"}`:                        "policy.host_timeout",
		`{"step_timeout": 0}`:                           "policy.step_timeout",
		`{"min_ready": "10s", "host_timeout": "10s"}`:   "policy.min_ready",
		`{"reboot": "perhaps"}`:                         "policy.reboot",
		`{"window": {"start": "22:00", "end": "late"}}`: "policy.window",
	} {
		_, err := readPolicy([]byte(body))
		var e *Error
		require.True(t, errors.As(err, &e), "%s: %v", body, err)
		require.Equal(t, Invalid, e.Kind, body)
		require.Equal(t, field, e.Fields[0].Field, "%s: %v", body, err)
	}
	for _, body := range []string{
		`{"max_unavailable": "101%"}`, `{"max_unavailable": -1}`, `{"max_unavailable": 1.5}`, `{"max_unavailable": true}`, `{"max_unavailable": {}}`,
		`{"max_failures": "many"}`, `{"canary": {"hosts": 1, "soak": "2 years"}}`, `{"min_ready": "-1s"}`, `[]`,
	} {
		_, err := readPolicy([]byte(body))
		require.Error(t, err, body)
	}
}

func TestARequestsPolicyLiesOverTheClusters(t *testing.T) {
	t.Parallel()
	cluster := Policy{MaxUnavailable: Count(5), MaxFailures: Percent(10)}
	request := Policy{MaxUnavailable: Count(2), Canary: &Canary{Hosts: Count(1)}}
	require.Equal(t, Policy{MaxUnavailable: Count(2), MaxFailures: Percent(10), Canary: request.Canary}, request.Over(cluster))
	require.Equal(t, cluster, Policy{}.Over(cluster))
}

func members(n int) (out []Member) {
	for i := range n {
		m := Member{Address: fmt.Sprintf("h%03d", i), Joined: int64((i * 7) % n), Labels: map[string]string{"rack": fmt.Sprint(i % 3)}}
		if i%5 == 0 {
			m.Labels = nil
		}
		out = append(out, m)
	}
	return out
}

// The same hosts give the same order, in whichever order they come; every chosen
// host is there once, canaries first.
func TestArrangeIsStable(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		all := members(rapid.IntRange(1, 40).Draw(t, "hosts"))
		p := Policy{Order: &Order{By: rapid.SampledFrom([]OrderBy{OrderJoined, OrderName, OrderRandom, OrderLabel}).Draw(t, "by"), Seed: rapid.Int64().Draw(t, "seed"), Label: "rack"}}
		if rapid.Bool().Draw(t, "canary") {
			p.Canary = &Canary{Hosts: Percent(rapid.IntRange(1, 100).Draw(t, "canaries"))}
		}
		first, err := p.Arrange(slices.Clone(all))
		if err != nil {
			t.Fatal(err)
		}
		shuffled := rapid.Permutation(all).Draw(t, "shuffled")
		second, err := p.Arrange(shuffled)
		if err != nil || !slices.Equal(first, second) {
			t.Fatalf("%v, then %v (%v)", first, second, err)
		}
		seen := map[string]bool{}
		canaries := 0
		for i, h := range first {
			if seen[h.Address] {
				t.Fatalf("%s is there twice", h.Address)
			}
			seen[h.Address] = true
			if h.Canary {
				canaries++
				if i >= canaries {
					t.Fatalf("canary %s comes after others", h.Address)
				}
			}
		}
		if len(seen) != len(all) {
			t.Fatalf("%d of %d hosts", len(seen), len(all))
		}
		if p.Canary != nil && canaries != p.Canary.Hosts.Ceil(len(all)) {
			t.Fatalf("%d canaries of %d hosts by %s", canaries, len(all), p.Canary.Hosts)
		}
	})
}

func TestOrders(t *testing.T) {
	t.Parallel()
	hosts := []Member{
		{Address: "b", Joined: 1, Labels: map[string]string{"rack": "2"}},
		{Address: "a", Joined: 2, Labels: map[string]string{"rack": "1"}},
		{Address: "c", Joined: 3},
	}
	order := func(p Policy) (out []string) {
		placed, err := p.Arrange(hosts)
		require.NoError(t, err)
		for _, h := range placed {
			out = append(out, h.Address)
		}
		return out
	}
	require.Equal(t, []string{"b", "a", "c"}, order(Policy{}))
	require.Equal(t, []string{"a", "b", "c"}, order(Policy{Order: &Order{By: OrderName}}))
	require.Equal(t, []string{"a", "b", "c"}, order(Policy{Order: &Order{By: OrderLabel, Label: "rack"}}))
	selector := "rack"
	require.Equal(t, []string{"b", "a"}, order(Policy{Selector: &selector}))
	require.Equal(t, []string{"a", "b", "c"}, order(Policy{Canary: &Canary{Selector: "rack=1"}}))
	none := "rack=9"
	_, err := Policy{Selector: &none}.Arrange(hosts)
	require.ErrorContains(t, err, "chooses no host")
	_, err = Policy{Canary: &Canary{Selector: none}}.Arrange(hosts)
	require.ErrorContains(t, err, "chooses no host")
}

func TestSelectors(t *testing.T) {
	t.Parallel()
	labels := map[string]string{"env": "prod", "tier": "web", "example.org/rack": "", "n": "5"}
	for text, want := range map[string]bool{
		"": true, "env=prod": true, "env==prod": true, "env=dev": false, "env!=dev": true, "env!=prod": false,
		"env": true, "!env": false, "!other": true, "other": false, "other!=x": true,
		"env in (dev, prod)": true, "env in (dev)": false, "env notin (dev)": true, "other notin (dev)": true,
		"env=prod,tier=web": true, "env=prod, tier=db": false, "env in (a,prod),tier notin (db,cache)": true,
		"example.org/rack": true, "example.org/rack=": true, "n=5": true,
	} {
		s, err := ParseSelector(text)
		require.NoError(t, err, text)
		require.Equal(t, want, s.Matches(labels), text)
	}
	for _, text := range []string{"=", "a=b=c", "a,,b", ",", "a in", "a in b", "a in (b", "a in ((b))", "-a", "a b", "a=ü", "!", "a!b"} {
		_, err := ParseSelector(text)
		require.Error(t, err, text)
	}
}

// What is read is written in a form that means the same.
func FuzzSelector(f *testing.F) {
	for _, text := range []string{"env=prod,tier!=db,rack in (a,b)", "!x", "x notin (a)", "a==b", "a in ()", "((,))"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSelector(text)
		if err != nil {
			return
		}
		again, err := ParseSelector(s.String())
		require.NoError(t, err, s.String())
		for _, labels := range []map[string]string{nil, {"env": "prod"}, {"a": "b"}, {"x": "a"}, {"rack": "a"}} {
			require.Equal(t, s.Matches(labels), again.Matches(labels), "%q, %q", text, s.String())
		}
	})
}

func FuzzPolicy(f *testing.F) {
	f.Add([]byte(`{"max_unavailable": "10%", "canary": {"hosts": 1}, "window": {"start": "22:00", "end": "04:00"}}`))
	f.Add([]byte(`{"min_ready": 1e400}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := readPolicy(text)
		if err != nil {
			return
		}
		_ = p.Next(Tally{Hosts: 10, Rest: Group{Ready: 10}}, Steering{}, time.Now())
		written, err := json.Marshal(p)
		require.NoError(t, err)
		_, err = readPolicy(written)
		require.NoError(t, err, "%s", written)
	})
}

func TestLabels(t *testing.T) {
	t.Parallel()
	require.NoError(t, CheckLabels(map[string]string{"env": "prod", "example.org/rack-1": "", "A.b_c": "1"}))
	for _, bad := range []map[string]string{{"": "x"}, {"-a": "x"}, {"a": "b c"}, {"a": "ü"}, {"a\n": "x"}} {
		require.Error(t, CheckLabels(bad), "%v", bad)
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"43.20261101.0", "7e1f3b2", "quay.io/fleet/os:43", "quay.io/x@sha256:0123", "1~rc1+b2"} {
		_, err := ParseVersion(good)
		require.NoError(t, err, good)
	}
	for _, bad := range []string{"", "-r", "--reboot", "a b", "a;b", "$(x)", "a\nb", "ü", string(make([]byte, 300))} {
		_, err := ParseVersion(bad)
		require.Error(t, err, bad)
	}
}
