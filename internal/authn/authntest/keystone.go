package authntest

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Keystone is OpenStack Identity, API v3, as far as asking for a token by password
// and by token goes.
type Keystone struct {
	Server

	mu        sync.Mutex
	passwords map[keystoneUser]string
	tokens    map[string]keystoneGrant
}

type keystoneUser struct{ domain, name string }

type keystoneGrant struct {
	user    keystoneUser
	expires time.Time
}

// NewKeystone starts one; it ends with the test.
func NewKeystone(t testing.TB) *Keystone {
	t.Helper()
	k := &Keystone{passwords: map[keystoneUser]string{}, tokens: map[string]keystoneGrant{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v3/auth/tokens", k.authenticate)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no such page", http.StatusNotFound) // of the web server before Keystone
	})
	k.start(t, mux)
	return k
}

// SetPassword adds a user or changes its password.
func (k *Keystone) SetPassword(domain, name, password string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.passwords[keystoneUser{domain, name}] = password
}

// DeleteUser removes a user with its tokens.
func (k *Keystone) DeleteUser(domain, name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.passwords, keystoneUser{domain, name})
	for id, g := range k.tokens {
		if g.user == (keystoneUser{domain, name}) {
			delete(k.tokens, id)
		}
	}
}

// Token gives a token of a user.
func (k *Keystone) Token(domain, name string, expires time.Time) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.issue(keystoneUser{domain, name}, expires)
}

func (k *Keystone) issue(u keystoneUser, expires time.Time) string {
	id := "gAAAAA" + rand.Text()
	k.tokens[id] = keystoneGrant{u, expires}
	return id
}

// Revoke makes a token no good.
func (k *Keystone) Revoke(token string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.tokens, token)
}

func (k *Keystone) authenticate(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Auth struct {
			Identity struct {
				Methods  []string `json:"methods"`
				Password *struct {
					User struct {
						Name     string `json:"name"`
						Password string `json:"password"`
						Domain   struct {
							ID   string `json:"id"`
							Name string `json:"name"`
						} `json:"domain"`
					} `json:"user"`
				} `json:"password"`
				Token *struct {
					ID string `json:"id"`
				} `json:"token"`
			} `json:"identity"`
		} `json:"auth"`
	}
	if json.NewDecoder(r.Body).Decode(&asked) != nil || len(asked.Auth.Identity.Methods) != 1 {
		keystoneError(w, http.StatusBadRequest, "Expecting to find valid JSON in request body.")
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var grant keystoneGrant
	switch who := asked.Auth.Identity; {
	case who.Methods[0] == "password" && who.Password != nil:
		user := who.Password.User
		domain := user.Domain.Name
		if user.Domain.ID == "default" {
			domain = "Default"
		}
		if domain == "" || user.Name == "" || user.Password == "" {
			keystoneError(w, http.StatusBadRequest, "Expecting to find domain in user.")
			return
		}
		known := keystoneUser{domain, user.Name}
		if password, ok := k.passwords[known]; ok && password == user.Password {
			grant = keystoneGrant{known, time.Now().Add(time.Hour)}
		}
	case who.Methods[0] == "token" && who.Token != nil:
		// A token that is had for another lives as long as that one.
		if g, ok := k.tokens[who.Token.ID]; ok && time.Now().Before(g.expires) {
			grant = g
		}
	default:
		keystoneError(w, http.StatusBadRequest, "Expecting to find a method in identity.")
		return
	}
	if grant.expires.IsZero() {
		keystoneError(w, http.StatusUnauthorized, "The request you have made requires authentication.")
		return
	}
	w.Header().Set("X-Subject-Token", k.issue(grant.user, grant.expires))
	const form = "2006-01-02T15:04:05.000000Z"
	reply(w, http.StatusCreated, map[string]any{"token": map[string]any{
		"methods":    asked.Auth.Identity.Methods,
		"user":       map[string]any{"domain": domainOf(grant.user.domain), "id": "0fe36e73809d46aeae6705c39077b1b3", "name": grant.user.name, "password_expires_at": nil},
		"audit_ids":  []string{"ysSI0bEWR0Gmrp4LHL9LFw"},
		"expires_at": grant.expires.UTC().Format(form),
		"issued_at":  time.Now().UTC().Format(form),
	}})
}

func domainOf(name string) map[string]any {
	id := "1789d1dd85c34a3f9fd5b5bb7a4dd5ee"
	if name == "Default" {
		id = "default"
	}
	return map[string]any{"id": id, "name": name}
}

func keystoneError(w http.ResponseWriter, status int, message string) {
	reply(w, status, map[string]any{"error": map[string]any{"code": status, "message": message, "title": http.StatusText(status)}})
}
