package commctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// settings are what the configuration file holds.
type settings struct {
	Endpoint   endpoints `json:"endpoint"`
	Username   string    `json:"username"`
	Password   *string   `json:"password"` // nil: to be asked for
	Token      string    `json:"token"`
	Kubeconfig string    `json:"kubeconfig"`
	CAFile     string    `json:"cafile"`
	ClientCert string    `json:"clientcert"`
	ClientKey  string    `json:"clientkey"`
	Insecure   bool      `json:"insecure"`
}

// endpoints is a URL or a list of them.
type endpoints []string

// UnmarshalJSON accepts a string or a list of strings.
func (e *endpoints) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*e = endpoints{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(text, &many); err != nil {
		return errors.New("endpoint must be a URL or a list of URLs")
	}
	*e = many
	return nil
}

// configPath gives the configuration file, and whether the command line names it.
func (a *App) configPath() (path string, named bool) {
	if a.configFile != "" {
		return a.configFile, true
	}
	if path := a.Env("COMMCTL_CONFIG"); path != "" {
		return path, false
	}
	return filepath.Join(a.Env("HOME"), ".commissaire.json"), false
}

// readSettings reads the configuration file. No file is no error, unless the
// command line names it: what is missing is asked for.
func (a *App) readSettings() (settings, error) {
	var s settings
	path, named := a.configPath()
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("configuration file: %w", err)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("configuration file %s: %w", path, err)
	}
	a.warnUnknown(path, text)
	for _, file := range []*string{&s.Kubeconfig, &s.CAFile, &s.ClientCert, &s.ClientKey} {
		if rest, ok := strings.CutPrefix(*file, "~/"); ok {
			*file = filepath.Join(a.Env("HOME"), rest)
		}
	}
	return s, nil
}

// warnUnknown names members that mean nothing. They are no errors, since old
// clients took no notice of them.
func (a *App) warnUnknown(path string, text []byte) {
	known := []string{"endpoint", "username", "password", "token", "kubeconfig", "cafile", "clientcert", "clientkey", "insecure"}
	var members map[string]json.RawMessage
	_ = json.Unmarshal(text, &members) // parsed before
	var unknown []string
	for name := range members {
		if !slices.Contains(known, strings.ToLower(name)) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	if len(unknown) > 0 {
		fmt.Fprintf(a.Err, "commctl: warning: %s: unknown members are ignored: %s\n", path, legible(strings.Join(unknown, ", ")))
	}
}

// complete asks for what the configuration lacks.
func (a *App) complete(s *settings) error {
	if len(s.Endpoint) == 0 {
		typed, err := a.ask("endpoint", "Endpoint: ", false)
		if err != nil {
			return err
		}
		s.Endpoint = endpoints{typed}
	}
	if s.Kubeconfig != "" || s.Token != "" || (s.ClientCert != "" && s.Username == "") {
		return nil // these speak for themselves
	}
	if s.Username == "" {
		typed, err := a.ask("username", "Username: ", false)
		if err != nil {
			return err
		}
		s.Username = typed
	}
	if s.Password == nil {
		typed, err := a.ask("password", "Password: ", true)
		if err != nil {
			return err
		}
		s.Password = &typed
	}
	return nil
}

func (a *App) ask(member, question string, hidden bool) (string, error) {
	typed, err := a.Ask(question, hidden)
	if errors.Is(err, errNoTerminal) {
		path, _ := a.configPath()
		return "", fmt.Errorf("no %s: %s does not set it, and %w", member, path, err)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", member, err)
	}
	return typed, nil
}

// parse checks the endpoints and trims the slashes at their ends.
func (e endpoints) parse() ([]*url.URL, error) {
	var all []*url.URL
	for _, text := range e {
		u, err := url.Parse(strings.TrimRight(strings.TrimSpace(text), "/"))
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			// The text may hold a password, so it is not repeated.
			return nil, errors.New("an endpoint is not a URL such as https://commissaire.example:8000")
		}
		all = append(all, u)
	}
	if len(all) == 0 {
		return nil, errors.New("the list of endpoints is empty")
	}
	return all, nil
}

func configTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "The configuration file",
		Long: `The configuration is a JSON object in ~/.commissaire.json, or in the file that the
variable COMMCTL_CONFIG or the flag --config names:

  endpoint    URL of the server, or a list; the next is taken when one is dead
  username    for HTTP Basic
  password    asked for when it is not given
  token       an API token, sent instead of username and password
  kubeconfig  path of a kubeconfig: the credentials of its current context are
              used (token, username and password, or client certificate), and
              username, password and token are ignored
  cafile      PEM file with the CA of the server; default: those of the system
  clientcert  PEM file with a client certificate
  clientkey   PEM file with its key; default: in clientcert too
  insecure    true: believe whatever certificate the server shows

What is missing is asked for at the terminal.`,
	}
}
