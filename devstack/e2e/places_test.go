package e2e

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/proto"
)

// places are all that was written down, by where.
type places map[string][]byte

func (p places) add(where string, text []byte) { p[where] = append(append(p[where], text...), '\n') }

func (p places) addFile(t *testing.T, where, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	p.add(where, text)
}

// addFolders adds everything below the state folders of the hosts, names too.
func (p places) addFolders(t *testing.T, where string, s *site) {
	t.Helper()
	for _, h := range s.Fleet.Hosts() {
		err := filepath.WalkDir(h.Dir(), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil // gone meanwhile, or nothing that holds text
			}
			if text, err := os.ReadFile(path); err == nil {
				p.add(where, []byte(path))
				p.add(where, text)
			}
			return nil
		})
		require.NoError(t, err)
	}
}

// dump is a pg_dump of a database of the shared Postgres.
func dump(t *testing.T, database string, options ...string) []byte {
	t.Helper()
	server, err := os.Readlink("/proc/" + strconv.Itoa(shared.postgres.PID()) + "/exe")
	require.NoError(t, err)
	out, err := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(server), "pg_dump"), append(options, "--dbname", shared.postgres.DSN(database))...).Output()
	require.NoError(t, err)
	return out
}

// histories are all workflows of the site's namespace with all their events. Temporal
// lists what was begun a moment ago a moment later.
func (s *site) histories() (all []byte) {
	s.t.Helper()
	ctx := s.t.Context()
	s.until(limit, "all workflows to be listed", func() bool {
		listed, err := s.Temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{})
		require.NoError(s.t, err)
		return listed.GetCount() >= int64(s.count(`SELECT count(*) FROM operation`))
	})
	found := 0
	for token := []byte(nil); found == 0 || token != nil; {
		page, err := s.Temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{NextPageToken: token})
		require.NoError(s.t, err)
		for _, info := range page.GetExecutions() {
			found++
			all = append(all, marshal(s.t, info)...)
			events := s.Temporal.GetWorkflowHistory(ctx, info.GetExecution().GetWorkflowId(), info.GetExecution().GetRunId(), false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
			for events.HasNext() {
				event, err := events.Next()
				require.NoError(s.t, err)
				all = append(all, marshal(s.t, event)...)
			}
		}
		if token = page.GetNextPageToken(); len(token) == 0 {
			break
		}
	}
	require.GreaterOrEqual(s.t, found, s.count(`SELECT count(*) FROM operation`), "every operation has a workflow")
	return all
}

// marshal gives the bytes on the wire, in which payloads stand as they are.
func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	text, err := proto.Marshal(m)
	require.NoError(t, err)
	return text
}
