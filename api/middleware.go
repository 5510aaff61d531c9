package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"commissaire/internal/authn"
	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

// recoverPanics turns a panic into a 500 without detail. The stack goes to the
// log by way of the call's error.
func recoverPanics(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				writeProblem(w, r, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// observe writes one log line for each request and counts it. Neither the query
// nor any header is logged.
func observe(next http.Handler, logger *slog.Logger, m *metrics) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		rec := &recorder{ResponseWriter: w}
		defer func() {
			c := callOf(r.Context())
			m.seen(c.operation, rec.code(), time.Since(begin))
			attrs := []slog.Attr{
				slog.String("request_id", c.id), slog.String("method", r.Method), slog.String("path", withoutTokens(r.URL.Path)),
				slog.String("operation", c.operation), slog.Int("status", rec.code()), slog.Int64("bytes", rec.bytes),
				slog.Duration("took", time.Since(begin)), slog.String("peer", c.peer), slog.String("address", c.address),
				slog.String("principal", c.principal.Name),
			}
			if c.err != nil {
				attrs = append(attrs, slog.String("error", c.err.Error()))
			}
			level := slog.LevelInfo
			if rec.code() >= http.StatusInternalServerError {
				level = slog.LevelError
			}
			logger.LogAttrs(r.Context(), level, "request", attrs...)
		}()
		next.ServeHTTP(rec, r)
	})
}

// tokenInPath matches a token of ours: its prefix and id, and its secret.
var tokenInPath = regexp.MustCompile(`(` + authn.APITokenPrefix + `|` + authn.JoinTokenPrefix + `)_([a-z0-9]+)_[^/]+`)

// withoutTokens gives a path as it may be kept: some who revoke a token write all of
// it where its id belongs.
func withoutTokens(path string) string {
	return tokenInPath.ReplaceAllString(path, "${1}_${2}_"+secret.Redacted)
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) code() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}

// limit bounds the time and the body of a request; the one route that streams
// bounds its time by itself. A body that is too large shows itself when it is
// read, see readBody.
func limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		callOf(r.Context()).unlimited = r.Context()
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		r = r.WithContext(ctx)
		r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
		next.ServeHTTP(w, r)
	})
}

// methods are those that any route has.
var methods = []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete}

// checkPath refuses methods nobody serves and paths that could mean one thing
// here and another behind us, and takes off the slash at the end.
func checkPath(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !plainPath(r) || !slices.Contains(methods, r.Method) {
			writeProblem(w, r, errNoRoute())
			return
		}
		u := *r.URL
		u.RawPath = ""
		if u.Path != "/" {
			u.Path = strings.TrimSuffix(u.Path, "/")
		}
		r2 := *r
		r2.URL = &u
		next.ServeHTTP(w, &r2)
	})
}

// plainPath says whether a path has one meaning only: no encoded separators, no
// control bytes, no empty or dot segments.
func plainPath(r *http.Request) bool {
	path := r.URL.Path
	if !strings.HasPrefix(path, "/") || !utf8.ValidString(path) || strings.Contains(path, `\`) {
		return false
	}
	if raw := strings.ToLower(r.URL.EscapedPath()); strings.Contains(raw, "%2f") {
		return false
	}
	for _, c := range path {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	segments := strings.Split(path[1:], "/")
	for i, s := range segments {
		if s == "." || s == ".." || (s == "" && i < len(segments)-1) {
			return false
		}
	}
	return true
}

func errNoRoute() error {
	return fleet.Errorf(fleet.NotFound, "there is no such path or method; /docs lists all")
}
