package api

import (
	"encoding/json"
	"flag"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

var seed = flag.Uint64("seed", 2026, "of the malformed requests")

// TestMalformedRequests sends thousands of requests made from the document, most of
// them wrong in some way, the same ones for the same seed. Whatever comes, the
// server neither panics nor blames itself, keeps none of it in memory, and every
// refusal is a problem document. It runs alone, to measure the process.
func TestMalformedRequests(t *testing.T) {
	b := setup(t)
	b.v0(t, "PUT /cluster/web", "", 201, "")
	b.readyHost(t, "192.0.2.10", "web")
	hostKey, _ := publicKey(t)
	g := &generator{Rand: rand.New(rand.NewPCG(*seed, 11)), key: key64(t), hostKey: hostKey, ids: []string{b.lastStarted().ID, "019af0c4-5b1e-7c3a-9f00-3d1d4a1b2c3d"}}
	for _, kind := range []string{"restart", "upgrade"} {
		b.v0(t, "PUT /cluster/web/"+kind, "", 201, "")
		g.ids = append(g.ids, b.lastStarted().ID)
		require.NoError(t, b.store.EndOperation(t.Context(), b.lastStarted().ID, fleet.OperationFailed, "a host failed"))
	}
	_, apiToken := b.makeToken(t, `{"name":"to be revoked"}`)
	_, joinToken := b.makeJoinToken(t, "")
	g.tokens = []string{apiToken, field(t, joinToken, "id").(string)}
	text, _ := b.makeToken(t, `{"name":"ci","operations":["getHost","putHost"]}`)
	joining, _ := b.makeJoinToken(t, "")
	g.creds = append(slices.Repeat([]string{b.creds}, 10), basicCreds("olga"), basicCreds("vera"), "Bearer "+text, joining.creds, "")
	for _, id := range g.ids {
		b.longAgo(t, id) // so that a stream of it ends at once
	}
	var operations []target
	for path, item := range b.doc.Paths.Map() {
		for method, op := range item.Operations() {
			if strings.HasPrefix(path, "/api/") {
				operations = append(operations, target{method, path, item, op})
			}
		}
	}
	slices.SortFunc(operations, func(a, b target) int { return strings.Compare(a.path+a.method, b.path+b.method) })

	const requests = 10_000
	seen := map[int]int{}
	before := residentMemory(t)
	for i := range requests {
		one := operations[i%len(operations)]
		path, body := g.request(one)
		r, err := http.NewRequestWithContext(t.Context(), one.method, b.url+path, strings.NewReader(body))
		if err != nil {
			continue // not even a URL
		}
		r.Header.Set("Authorization", pick(g, g.creds...))
		for name, value := range g.headers(one) {
			r.Header.Set(name, value)
		}
		if g.IntN(4) == 0 {
			r.Header.Set("Content-Type", pick(g, "text/plain", "application/json", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"))
		}
		a := b.send(t, r)
		require.Less(t, a.status, 500, "seed %d: %s %s %.300s: %s", *seed, one.method, path, body, a.body)
		seen[a.status]++
	}
	require.NotContains(t, b.log.String(), "panic")
	require.NotContains(t, b.log.String(), `"level":"ERROR"`)
	for _, status := range []int{200, 201, 400, 403, 404, 409} {
		require.NotZero(t, seen[status], "the generator reaches too little: %v", seen)
	}
	grown := residentMemory(t) - before
	t.Logf("%d requests with seed %d, answers by status: %v; memory grew by %d MiB", requests, *seed, seen, grown>>20)
	require.Less(t, grown, 64<<20)
}

// residentMemory is what the process holds, in bytes, without what the runtime could
// give back (proc(5), statm).
func residentMemory(t *testing.T) int {
	t.Helper()
	httpClient.CloseIdleConnections()
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	require.NoError(t, err)
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	require.NoError(t, err)
	return pages * os.Getpagesize()
}

type target struct {
	method, path string
	item         *openapi3.PathItem
	op           *openapi3.Operation
}

type generator struct {
	*rand.Rand
	key string

	hostKey string
	ids     []string // of operations that have ended, and of one that never was

	tokens []string // ids
	creds  []string // Authorization headers
}

func pick[T any](g *generator, from ...T) T { return from[g.IntN(len(from))] }

// odd are values that break things elsewhere.
var odd = []string{
	"", " ", ".", "..", "..;", "%00", "\x00", "\n", "a/b", "a\\b", "a;id", "$(id)", "`id`", "'--", `"`, "ü", "\u202e", "\xff", "null", "true", "-1", "0",
	"1e400", "99999999999999999999", "2147483648", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "007", "::1", "::", "fe80::1%eth0", "192.0.2.10:22", "{}", "[]", "{{7*7}}", "%s%n", "019af0c4-5b1e-7c3a-9f00-3d1d4a1b2c3d",
	strings.Repeat("a", 300), strings.Repeat("1", 5000),
}

func (g *generator) request(o target) (path, body string) {
	path = o.path
	query := url.Values{}
	for _, ref := range append(slices.Clone(o.item.Parameters), o.op.Parameters...) {
		p := ref.Value
		value := g.plain(p.Name)
		if g.IntN(8) == 0 {
			value = pick(g, odd...)
		}
		switch {
		case p.In == openapi3.ParameterInHeader:
		case p.In == openapi3.ParameterInPath:
			path = strings.ReplaceAll(path, "{"+p.Name+"}", url.PathEscape(value))
		case g.IntN(2) == 0:
			query.Add(p.Name, value)
		}
	}
	if g.IntN(8) == 0 {
		query.Add(pick(g, odd...), pick(g, odd...))
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	if o.op.RequestBody != nil {
		body = g.body(o.op.RequestBody.Value.Content["application/json"].Schema.Value)
	}
	return path, body
}

// headers gives values for the headers of the document that can be sent at all.
func (g *generator) headers(o target) map[string]string {
	headers := map[string]string{}
	for _, ref := range o.op.Parameters {
		if ref.Value.In != openapi3.ParameterInHeader || g.IntN(4) > 0 {
			continue
		}
		if value := pick(g, append(odd, "key-1", "key-2", "1-1")...); !strings.ContainsAny(value, "\x00\n") {
			headers[ref.Value.Name] = value
		}
	}
	return headers
}

// plain gives a value that often fits.
func (g *generator) plain(name string) string {
	switch name {
	case "name", "cluster":
		return pick(g, "web", "web", "web", "default")
	case "address", "host":
		return pick(g, "192.0.2.10", "192.0.2.10", "192.0.2.10", "2001:db8::1", "node-1.example.com")
	case "id":
		return pick(g, g.ids...)
	case "cursor": // of operations, or of what is numbered
		return pick(g, append(slices.Clone(g.ids), "0", "2147483647", "2147483648", "9223372036854775807")...)
	case "token":
		return pick(g, append(g.tokens, "k3v9q2m4x7c1b8n0")...)
	case "principal":
		return "alice"
	case "operation":
		return "putHost"
	case "after":
		return pick(g, "1-1", "08-1", "2147483648-2147483648", "18446744073709551615-9223372036854775807", "18446744073709551616-1", "1-9223372036854775808")
	case "offset":
		return pick(g, "0", "7", "2147483648", "9007199254740991")
	case "step":
		return "prepare"
	case "kind":
		return "restart"
	case "dry_run", "output":
		return pick(g, "true", "false")
	case "selector":
		return "env=prod"
	case "since", "until":
		return "2026-11-20T14:03:00Z"
	case "state":
		return "failed"
	}
	return pick(g, "1", "7", "100")
}

func (g *generator) body(schema *openapi3.Schema) string {
	object := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		if g.IntN(3) == 0 || name == "old" || name == "new" || name == "ssh_priv_key" {
			object[name] = g.value(name, schema.Properties[name].Value, 0)
		}
	}
	if g.IntN(8) == 0 {
		object[pick(g, odd...)] = g.junk(0)
	}
	text, err := json.Marshal(object)
	if err != nil {
		return "{}"
	}
	return g.damage(string(text))
}

func (g *generator) value(name string, s *openapi3.Schema, depth int) any {
	if g.IntN(10) == 0 {
		return g.junk(depth)
	}
	switch {
	case name == "ssh_priv_key":
		return g.key
	case s.Type.Is("string") && len(s.Enum) > 0:
		return pick(g, s.Enum...)
	case s.Type.Is("string"):
		if name == "address" || name == "host" {
			return "192.0.2.10"
		}
		if name == "host_key" || name == "key" {
			return g.hostKey
		}
		return pick(g, "192.0.2.10", "web", "root", "default", "", "env=prod", "22:00")
	case s.Type.Is("integer"):
		return pick(g, 22, 2222, 0)
	case s.Type.Is("boolean"):
		return true
	case s.Type.Is("array"):
		return []any{g.value("", s.Items.Value, depth+1)}
	case len(s.AllOf) > 0:
		return g.value(name, s.AllOf[0].Value, depth)
	case len(s.OneOf) > 0: // an amount or a time
		return pick[any](g, 1, 2, "10%", "90s", "100%", "1h", "-1", "5000h5000h", 1<<40)
	case s.Type.Is("object") && len(s.Properties) > 0 && depth < 5:
		object := map[string]any{}
		for _, member := range slices.Sorted(maps.Keys(s.Properties)) {
			if g.IntN(4) == 0 || slices.Contains(s.Required, member) {
				object[member] = g.value(member, s.Properties[member].Value, depth+1)
			}
		}
		return object
	}
	return g.junk(depth)
}

func (g *generator) junk(depth int) any {
	switch g.IntN(9) {
	case 0:
		return nil
	case 1:
		return true
	case 2:
		return pick(g, 0, -1, 1.5, 1e300, 65536, 9007199254740993)
	case 3:
		return json.RawMessage(pick(g, "1e400", "-0", "123456789012345678901234567890", "0.1e1"))
	case 4:
		if depth < 40 {
			return []any{g.junk(depth + 1), g.junk(depth + 1)}
		}
	case 5:
		if depth < 40 {
			return map[string]any{pick(g, odd...): g.junk(depth + 1)}
		}
	}
	return pick(g, odd...)
}

// damage breaks the text itself, now and then.
func (g *generator) damage(text string) string {
	switch g.IntN(16) {
	case 0:
		return text[:g.IntN(len(text)+1)]
	case 1:
		at := g.IntN(len(text) + 1)
		return text[:at] + pick(g, odd...) + text[at:]
	case 2:
		return text + pick(g, "x", "{}", "]", "\x00", " \n")
	case 3:
		return strings.Replace(text, "{", `{"a":1,"a":2,`, 1)
	case 4:
		return pick(g, "", "[]", "null", "1", `"x"`, "{", "{}", strings.Repeat("[", 5000), strings.Repeat(`{"a":`, 5000))
	}
	return text
}
