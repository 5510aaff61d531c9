package api

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/api/gen"
	"commissaire/internal/fleet"
	"commissaire/internal/store"
)

func (b *bundle) operations(t *testing.T, query string) gen.OperationPage {
	t.Helper()
	a := b.v0(t, "GET /operations"+query, "", 200, "")
	var page gen.OperationPage
	require.NoError(t, json.Unmarshal([]byte(a.body), &page))
	return page
}

func TestListOperations(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.v0(t, "GET /operations", "", 200, `{"operations":[]}`)
	b.v0(t, "PUT /cluster/c", "", 201, "")
	b.readyHost(t, "h1", "c")
	b.addHost(t, "h2", "c")
	b.v0(t, "PUT /cluster/c/restart", "", 201, "")

	all := b.operations(t, "").Operations
	require.Len(t, all, 3)
	require.Equal(t, gen.Restart, all[0].Kind, "newest first")
	require.Equal(t, "c", all[0].Cluster)
	require.Equal(t, "h2", all[1].Host)
	require.Equal(t, "alice", all[2].RequestedBy)
	for query, want := range map[string]int{
		"?kind=restart": 1, "?kind=bootstrap": 2, "?host=h1": 2, "?cluster=c&kind=restart": 1, "?host=h1&kind=bootstrap": 1, "?state=succeeded": 1, "?state=pending": 2,
		"?requested_by=alice": 3, "?requested_by=bob": 0, "?since=2020-01-01T00:00:00Z": 3, "?until=2020-01-01T00:00:00.000000": 0,
		"?since=2020-01-01T00:00:00%2B02:00&until=2999-01-01T00:00:00.5Z": 3, "?host=h2&since=2999-01-01T00:00:00Z": 0,
		"?host=h9": 0, "?cluster=none": 0, "?kind=restart&state=failed": 0, "?limit=200": 3,
	} {
		require.Len(t, b.operations(t, query).Operations, want, query)
	}
	var paged []gen.Operation
	page := b.operations(t, "?limit=1")
	for {
		paged = append(paged, page.Operations...)
		if page.Next == "" {
			break
		}
		require.Less(t, len(paged), 4)
		page = b.operations(t, "?limit=1&cursor="+page.Next)
	}
	require.Equal(t, all, paged)

	for query, blame := range map[string]string{
		"?limit=0": "limit", "?limit=201": "limit", "?limit=x": "limit", "?limit=1.5": "limit", "?limit=99999999999999999999": "limit", "?limit=": "limit",
		"?kind=dance": "kind", "?state=odd": "state", "?cluster=a%20b": "cluster", "?host=a;b": "query", "?host=a%3Bb": "host", "?host=a:b": "host",
		"?since=yesterday": "since", "?until=": "until", "?since=2020-01-01": "since", "?requested_by=": "requested_by",
		"?cursor=x": "cursor", "?cursor=%00": "cursor", "?kind=restart&kind=bootstrap": "kind", "?unknown=x": "unknown",
	} {
		a := b.v0(t, "GET /operations"+query, "", 400, "")
		require.Equal(t, []string{blame}, blamed(t, a), query)
	}
}

func TestOperation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.addHost(t, "h", "")
	id := b.dispatcher.started[0].ID
	a := b.v0(t, "GET /operations/"+id, "", 200, "")
	require.Equal(t, "bootstrap", field(t, a, "kind"))
	require.Equal(t, "pending", field(t, a, "state"))
	b.v0(t, "GET /operations/"+id+"/hosts", "", 200, `{"hosts":[{"address":"h","state":"pending","started_at":"","finished_at":""}]}`)
	b.v0(t, "GET /operations/"+id+"/steps", "", 200, `{"steps":[]}`)
	b.v0(t, "GET /operations/"+id+"/steps?host=h", "", 200, `{"steps":[]}`)
	none := "019af0c4-5b1e-7c3a-9f00-3d1d4a1b2c3d"
	for _, path := range []string{"", "/hosts", "/steps", "/hosts/h/steps/prepare/output"} {
		b.v0(t, "GET /operations/"+none+path, "", 404, "")
		a := b.v0(t, "GET /operations/no-id"+path, "", 404, "")
		require.Equal(t, []string{"id"}, blamed(t, a))
	}
	b.v0(t, "GET /operations/"+id+"/hosts/h/steps/prepare/output", "", 404, "")
	b.endBootstrap(t, "h", fleet.HostRunFailed)
	a = b.v0(t, "GET /operations/"+id, "", 200, "")
	require.Equal(t, "failed", field(t, a, "state"))
	require.Equal(t, "sshd did not answer", field(t, a, "reason"))
}

func TestStepsAndOutput(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	b.addHost(t, "h", "")
	op := b.dispatcher.started[0]
	_, err := b.store.BeginOperation(ctx, op.ID)
	require.NoError(t, err)
	_, err = b.store.BeginHostRun(ctx, op.ID, "h")
	require.NoError(t, err)
	s, err := b.store.BeginStep(ctx, op.ID, "h", "prepare", 1)
	require.NoError(t, err)
	path := "/operations/" + op.ID + "/hosts/h/steps/prepare/output"
	read := func(query string, body string, offset, next, size int64, ended bool) {
		t.Helper()
		a := b.v0(t, "GET "+path+query, "", 200, "")
		require.Equal(t, body, a.body, query)
		require.Equal(t, "application/octet-stream", a.header.Get("Content-Type"))
		for name, want := range map[string]string{
			"Output-Offset": strconv.FormatInt(offset, 10), "Output-Next-Offset": strconv.FormatInt(next, 10),
			"Output-Size": strconv.FormatInt(size, 10), "Output-Ended": strconv.FormatBool(ended),
		} {
			require.Equal(t, want, a.header.Get(name), "%s of %s", name, query)
		}
	}
	read("", "", 0, 0, 0, false)
	binary := "a\x00\xff\r\nb"
	_, err = b.store.AppendOutput(ctx, s.ID, 0, []byte(binary))
	require.NoError(t, err)
	_, err = b.store.AppendOutput(ctx, s.ID, 6, []byte("second"))
	require.NoError(t, err)
	code := 3
	_, err = b.store.EndStep(ctx, store.StepEnd{StepID: s.ID, State: fleet.StepFailed, ExitCode: &code, Reason: "exit code 3", OutputSize: 12})
	require.NoError(t, err)
	read("", binary+"second", 0, 12, 12, true)
	read("?offset=2&limit=6", "\xff\r\nbse", 2, 8, 12, true)
	read("?offset=12", "", 12, 12, 12, true)
	read("?offset=9007199254740991", "", 9007199254740991, 9007199254740991, 12, true)
	read("?attempt=1", binary+"second", 0, 12, 12, true)

	a := b.v0(t, "GET /operations/"+op.ID+"/steps", "", 200, "")
	var page gen.StepPage
	require.NoError(t, json.Unmarshal([]byte(a.body), &page))
	require.Len(t, page.Steps, 1)
	require.Equal(t, 3, *page.Steps[0].ExitCode)
	require.Equal(t, int64(12), page.Steps[0].OutputStored)

	second, err := b.store.BeginStep(ctx, op.ID, "h", "prepare", 2)
	require.NoError(t, err)
	_, err = b.store.AppendOutput(ctx, second.ID, 0, []byte("again"))
	require.NoError(t, err)
	a = b.v0(t, "GET "+path, "", 200, "")
	require.Equal(t, "again", a.body, "the latest attempt")
	a = b.v0(t, "GET "+path+"?attempt=1", "", 200, "")
	require.Equal(t, binary+"second", a.body)
	b.v0(t, "GET "+path+"?attempt=3", "", 404, "")
	for _, query := range []string{"?offset=-1", "?offset=x", "?limit=0", "?limit=1048577", "?attempt=0", "?offset=9007199254740992"} {
		b.v0(t, "GET "+path+query, "", 400, "")
	}
	b.v0(t, "GET /operations/"+op.ID+"/hosts/h/steps/No;pe/output", "", 404, "")
}

// TestCursorsPastTheEnd: a cursor that no page gave is the client's affair, also one that
// is larger than any number in the list.
func TestCursorsPastTheEnd(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.addHost(t, "h", "")
	id := b.dispatcher.started[0].ID
	for cursor, status := range map[string]int{
		"2147483647": 200, "2147483648": 200, "9999999999": 200, "9223372036854775807": 200,
		"9223372036854775808": 400, "99999999999999999999": 400, "-1": 400,
	} {
		for _, list := range []string{"/operations/" + id + "/hosts?", "/operations/" + id + "/hosts?state=pending&", "/operations/" + id + "/steps?", "/operations/" + id + "/steps?host=h&", "/audit?"} {
			a := b.v0(t, "GET "+list+"cursor="+cursor, "", status, "")
			if status == 400 {
				require.Equal(t, []string{"cursor"}, blamed(t, a), "%s %s", list, cursor)
			} else if list != "/audit?" { // whose newest entries come first
				require.Contains(t, []string{`{"hosts":[]}`, `{"steps":[]}`}, strings.TrimSpace(a.body))
			}
		}
	}
	for _, cursor := range []string{"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"} {
		b.operations(t, "?cursor="+cursor)
		b.operations(t, "?host=h&cursor="+cursor)
	}
	require.NoError(t, b.store.EndOperation(t.Context(), id, fleet.OperationFailed, "x"))
	b.longAgo(t, id) // so that a stream of it ends at once
	for after, status := range map[string]int{
		"0-0": 200, "2147483648-2147483648": 200, "18446744073709551615-9223372036854775807": 200,
		"18446744073709551616-0": 400, "1-9223372036854775808": 400,
	} {
		b.v0(t, "GET /operations/"+id+"/events?after="+after, "", status, "")
	}
}

func TestStretch(t *testing.T) {
	t.Parallel()
	chunk := func(offset int64, data string) fleet.OutputChunk {
		return fleet.OutputChunk{Offset: offset, Data: []byte(data)}
	}
	for i, test := range []struct {
		chunks []fleet.OutputChunk
		offset int64
		limit  int
		from   int64
		data   string
	}{
		{nil, 7, 10, 7, ""},
		{[]fleet.OutputChunk{chunk(0, "abc"), chunk(3, "def")}, 0, 10, 0, "abcdef"},
		{[]fleet.OutputChunk{chunk(0, "abc"), chunk(3, "def")}, 0, 4, 0, "abcd"},
		{[]fleet.OutputChunk{chunk(0, "abc"), chunk(9, "tail")}, 0, 10, 0, "abc"},
		{[]fleet.OutputChunk{chunk(9, "tail")}, 3, 10, 9, "tail"},
		{[]fleet.OutputChunk{chunk(9, "ta"), chunk(11, "il")}, 3, 10, 9, "tail"},
	} {
		from, data := stretch(test.chunks, test.offset, test.limit)
		require.Equal(t, test.from, from, fmt.Sprint(i))
		require.Equal(t, test.data, string(data), fmt.Sprint(i))
	}
}
