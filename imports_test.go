package commissaire

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// rule says what a package may import: of ours only the packages named, of
// others anything but what is forbidden. A pattern ends in "/..." for a tree.
type rule struct {
	ours      []string
	forbidden []string
	stdOnly   bool
}

var (
	temporalSDK = "go.temporal.io/..."
	ssh         = "golang.org/x/crypto/ssh/..."
	postgres    = "github.com/jackc/..."
	http        = "net/http/..."
	echo        = "github.com/labstack/..."
	kubernetes  = "k8s.io/..."
)

// rules has a row for every package of the module; a new package needs one.
var rules = map[string]rule{
	".":                             {},
	"internal/fleet":                {stdOnly: true, forbidden: []string{"net/http/...", "os", "os/...", "net"}},
	"internal/secret":               {ours: []string{"internal/fleet"}, forbidden: []string{temporalSDK, postgres, http}},
	"internal/hostos":               {ours: []string{"internal/fleet"}, stdOnly: true, forbidden: []string{"os", "os/...", "net", "net/..."}},
	"internal/profile":              {ours: []string{"internal/fleet", "internal/secret", "internal/hostos", "internal/containermgr/options"}, stdOnly: true, forbidden: []string{"os", "os/...", "net", "net/http/..."}},
	"internal/hostsource":           {ours: []string{"internal/fleet", "internal/nearest"}, forbidden: []string{temporalSDK, ssh, postgres, echo}},
	"internal/version":              {stdOnly: true},
	"internal/commctl":              {ours: []string{"api/client", "internal/fleet", "internal/secret", "internal/version"}, forbidden: []string{temporalSDK, postgres, echo}},
	"internal/config":               {ours: []string{"internal/nearest"}, forbidden: []string{temporalSDK, ssh, echo}},
	"internal/remote":               {ours: []string{"internal/secret"}, forbidden: []string{temporalSDK, postgres, http, echo}},
	"internal/containermgr":         {ours: []string{"internal/containermgr/options", "internal/fleet", "internal/secret"}, forbidden: []string{temporalSDK, ssh, postgres, echo}},
	"internal/containermgr/options": {ours: []string{"internal/fleet", "internal/secret"}, stdOnly: true, forbidden: []string{"os", "os/...", "net", "net/http/..."}},
	"internal/store":                {ours: []string{"internal/fleet", "internal/secret", "migrations"}, forbidden: []string{temporalSDK, http, echo}},
	"internal/nearest":              {stdOnly: true, forbidden: []string{"net", "net/...", "os", "os/..."}},
	"internal/authn":                {ours: []string{"internal/fleet", "internal/nearest", "internal/secret"}, forbidden: []string{temporalSDK, ssh, postgres}},
	"internal/httptls":              {stdOnly: true},
	"internal/authz":                {ours: []string{"internal/fleet", "internal/authn"}, forbidden: []string{temporalSDK, ssh, postgres, http, echo}},
	"internal/dispatch":             {ours: []string{"internal/fleet", "workflows"}, forbidden: []string{postgres, ssh, echo}},
	"internal/app":                  {ours: []string{"..."}},
	"migrations":                    {forbidden: []string{temporalSDK, ssh, http, echo}},
	"workflows":                     {ours: []string{"internal/fleet"}, forbidden: []string{"net", "net/...", "os", "os/...", ssh, postgres, echo, "math/rand/...", "crypto/rand"}},
	"activities":                    {ours: []string{"internal/fleet", "internal/secret", "internal/remote", "internal/hostos", "internal/profile", "internal/containermgr", "internal/containermgr/options", "internal/hostsource", "internal/store", "workflows"}, forbidden: []string{kubernetes, postgres, http, echo, ssh, "go.temporal.io/sdk/client"}},
	"worker":                        {ours: []string{"activities", "workflows"}, forbidden: []string{postgres, ssh, http, echo}},
	"api":                           {ours: []string{"api/...", "internal/fleet", "internal/secret", "internal/authn", "internal/authz", "internal/version", "internal/store", "internal/hostos", "internal/containermgr/options"}, forbidden: []string{temporalSDK, ssh, postgres, "github.com/jackc/pgx/..."}},
	"api/docs":                      {forbidden: []string{temporalSDK, ssh, postgres}},
	"api/gen":                       {ours: []string{"internal/fleet"}, forbidden: []string{temporalSDK, ssh, postgres}},
	"api/client":                    {ours: []string{"internal/fleet"}, forbidden: []string{temporalSDK, ssh, postgres, echo}},
	"cmd/commctl":                   {ours: []string{"internal/commctl"}, forbidden: []string{temporalSDK, ssh, postgres, echo}},
	"cmd/commissaire":               {ours: []string{"internal/app", "internal/config", "internal/secret", "internal/version"}, forbidden: []string{temporalSDK, ssh, postgres, echo}},
}

// testKits serve tests and the development stack; nothing that ships may import them.
var testKits = []string{"internal/privatepg/...", "internal/remote/remotetest/...", "internal/remote/nspawntest/...", "internal/authn/authntest/...", "internal/kubetest/...", "internal/leaktest/...", "internal/containermgr/containermgrtest/..."}

func TestImports(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	require.NoError(t, err)
	seen := map[string]bool{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}
		name := own(p.ImportPath)
		if matches(testKits, name) {
			continue
		}
		seen[name] = true
		r, ok := rules[name]
		if !ok {
			t.Errorf("package %s has no row in the import rules; give it one", name)
			continue
		}
		for _, imported := range p.Imports {
			switch local := own(imported); {
			case strings.HasPrefix(imported, "commissaire"):
				if matches(testKits, local) {
					t.Errorf("%s imports the test kit %s", name, local)
				} else if !matches(r.ours, local) {
					t.Errorf("%s may not import %s", name, local)
				}
			case matches(r.forbidden, imported):
				t.Errorf("%s may not import %s", name, imported)
			case r.stdOnly && strings.Contains(strings.SplitN(imported, "/", 2)[0], "."):
				t.Errorf("%s may import the standard library only, not %s", name, imported)
			}
		}
	}
	for name := range rules {
		if name != "." && !seen[name] {
			t.Errorf("the import rules have a row for %s, which is not there", name)
		}
	}
}

func own(importPath string) string {
	if importPath == "commissaire" {
		return "."
	}
	return strings.TrimPrefix(importPath, "commissaire/")
}

func matches(patterns []string, p string) bool {
	for _, pattern := range patterns {
		if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
			if p == tree || strings.HasPrefix(p, tree+"/") {
				return true
			}
		} else if pattern == "..." || path.Clean(pattern) == p {
			return true
		}
	}
	return false
}
