package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"

	"commissaire/internal/authn"
	"commissaire/internal/fleet"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares bytes that users see with a file.
func golden(t *testing.T, name string, have []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, have, 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err, "run go test ./api -update")
	require.Equal(t, string(want), string(have))
}

func TestProblemDocuments(t *testing.T) {
	t.Parallel()
	cause := errors.New("password=hunter2 at 10.0.0.1")
	for name, test := range map[string]struct {
		err    error
		status int
	}{
		"invalid":     {fleet.InvalidField("remote_user", "must be a login name"), 400},
		"two-fields":  {&fleet.Error{Kind: fleet.Invalid, Detail: "a is missing", Fields: []fleet.FieldError{{Field: "a", Detail: "is missing"}, {Field: "b", Detail: "is missing"}}}, 400},
		"forbidden":   {errForbidden(), 403},
		"role":        {fleet.Errorf(fleet.Forbidden, "this needs role admin; you are alice with role viewer"), 403},
		"too-many":    {refusal(&authn.Throttled{RetryAfter: 1500 * time.Millisecond}), 429},
		"not-found":   {fleet.Errorf(fleet.NotFound, "there is no cluster web"), 404},
		"no-route":    {echo.ErrNotFound, 404},
		"no-method":   {echo.ErrMethodNotAllowed, 404},
		"not-ready":   {fleet.Errorf(fleet.NotReady, "host 192.0.2.1 is bootstrapping"), 405},
		"conflict":    {fleet.Errorf(fleet.Conflict, "the key differs from the stored one"), 409},
		"held":        {&fleet.Error{Kind: fleet.Conflict, Detail: "a restart runs on cluster web", Holder: &fleet.Operation{ID: "019af0c4-5b1e-7c3a-9f00-3d1d4a1b2c3d"}}, 409},
		"wrapped":     {fmt.Errorf("put host: %w", fleet.Errorf(fleet.Conflict, "the key differs from the stored one")), 409},
		"too-large":   {errTooLarge(), 413},
		"compressed":  {fleet.Errorf(unsupported, "send the body as it is, without Content-Encoding"), 415},
		"internal":    {cause, 500},
		"odd-kind":    {fleet.Errorf("odd", "secret detail"), 500},
		"unavailable": {&fleet.Error{Kind: fleet.Unavailable, Detail: "the database does not answer", Err: cause}, 503},
		"timeout":     {fmt.Errorf("query: %w", context.DeadlineExceeded), 503},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodPut, "/api/v0/host/192.0.2.1?secret=1", nil)
			r = r.WithContext(context.WithValue(r.Context(), callKey{}, &call{id: "request-1"}))
			writeProblem(w, r, test.err)
			require.Equal(t, test.status, w.Code)
			require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
			require.Equal(t, map[int]string{503: "5", 429: "2"}[test.status], w.Header().Get("Retry-After"))
			require.NotContains(t, w.Body.String(), "hunter2")
			require.NotContains(t, w.Body.String(), "secret")
			var pretty bytes.Buffer
			require.NoError(t, json.Indent(&pretty, w.Body.Bytes(), "", "  "))
			golden(t, "problems/"+name+".json", append(pretty.Bytes(), '\n'))
		})
	}
}

func TestEveryKindOfFleetHasAStatus(t *testing.T) {
	t.Parallel()
	for _, kind := range []fleet.Kind{fleet.Invalid, fleet.Forbidden, fleet.NotFound, fleet.Conflict, fleet.NotReady, fleet.Unavailable} {
		require.NotZero(t, statusOf[kind], kind)
	}
}

// TestNoValueInAProblem: what a library says about a value may quote it.
func TestNoValueInAProblem(t *testing.T) {
	t.Parallel()
	err := invalid(errors.New(`value "hunter2" does not fit`), "body")
	require.Equal(t, fleet.Invalid, fleet.KindOf(err))
	require.NotContains(t, err.Error(), "hunter2", "errors go to the log")
}

// A client that is told 403 throws its credentials away; one that is told 503 tries
// again.
func TestCredentialsThatCannotBeCheckedAreNotRefused(t *testing.T) {
	t.Parallel()
	require.Equal(t, http.StatusServiceUnavailable, problemOf(refusal(authn.ErrUnavailable)).Status)
	require.Equal(t, http.StatusForbidden, problemOf(refusal(authn.ErrDenied)).Status)
}
