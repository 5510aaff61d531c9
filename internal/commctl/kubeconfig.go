package commctl

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"
)

// kubeconfig is as much of a kubeconfig (v1) as says who the user is.
type kubeconfig struct {
	CurrentContext string `yaml:"current-context"`
	Contexts       []struct {
		Name    string `yaml:"name"`
		Context struct {
			User string `yaml:"user"`
		} `yaml:"context"`
	} `yaml:"contexts"`
	Users []struct {
		Name string   `yaml:"name"`
		User kubeUser `yaml:"user"`
	} `yaml:"users"`
}

type kubeUser struct {
	Token           string `yaml:"token"`
	TokenFile       string `yaml:"tokenFile"`
	Username        string `yaml:"username"`
	Password        string `yaml:"password"`
	Certificate     string `yaml:"client-certificate"`
	CertificateData string `yaml:"client-certificate-data"`
	Key             string `yaml:"client-key"`
	KeyData         string `yaml:"client-key-data"`
	Exec            any    `yaml:"exec"`
	AuthProvider    any    `yaml:"auth-provider"`
}

// readKubeconfig gives the credentials of the user of the current context. Paths
// in the file are relative to its directory.
func readKubeconfig(path string) (credentials, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return credentials{}, err
	}
	var k kubeconfig
	if err := yaml.Unmarshal(text, &k); err != nil {
		return credentials{}, fmt.Errorf("%s is not a kubeconfig: %w", path, err)
	}
	user, err := k.currentUser()
	if err != nil {
		return credentials{}, fmt.Errorf("%s: %w", path, err)
	}
	c, err := user.credentials(filepath.Dir(path))
	if err != nil {
		return credentials{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func (k kubeconfig) currentUser() (kubeUser, error) {
	if k.CurrentContext == "" {
		return kubeUser{}, errors.New("current-context is not set")
	}
	for _, c := range k.Contexts {
		if c.Name != k.CurrentContext {
			continue
		}
		for _, u := range k.Users {
			if u.Name == c.Context.User {
				return u.User, nil
			}
		}
		return kubeUser{}, fmt.Errorf("there is no user %q, which context %q names", c.Context.User, c.Name)
	}
	return kubeUser{}, fmt.Errorf("there is no context %q", k.CurrentContext)
}

func (u kubeUser) credentials(dir string) (credentials, error) {
	c := credentials{username: u.Username, password: u.Password}
	token := u.Token
	if u.TokenFile != "" { // wins when it can be read, as with kubectl
		text, err := os.ReadFile(within(dir, u.TokenFile))
		if err != nil && token == "" {
			return c, err
		}
		if err == nil {
			token = string(text)
		}
	}
	var err error
	if c.token, err = tidyToken(token); err != nil {
		return c, err
	}
	certificate, err := readPEM(dir, u.Certificate, u.CertificateData)
	if err != nil {
		return c, fmt.Errorf("client-certificate: %w", err)
	}
	key, err := readPEM(dir, u.Key, u.KeyData)
	if err != nil {
		return c, fmt.Errorf("client-key: %w", err)
	}
	if len(certificate) > 0 {
		pair, err := tls.X509KeyPair(certificate, key)
		if err != nil {
			return c, fmt.Errorf("client-certificate: %w", err)
		}
		c.certificate = &pair
	}
	if c.token == "" && c.username == "" && c.certificate == nil && (u.Exec != nil || u.AuthProvider != nil) {
		return c, errors.New("a program makes the credentials of the user (exec, auth-provider), which commctl does not run; have it write a token into a tokenFile")
	}
	if c.token == "" && c.username == "" && c.certificate == nil {
		return c, errors.New("the user has neither a token, nor username and password, nor a client certificate")
	}
	return c, nil
}

// readPEM gives what a pair of members holds: base64 in the file, which wins, or the
// path of a file.
func readPEM(dir, file, data string) ([]byte, error) {
	switch {
	case data != "":
		return base64.StdEncoding.DecodeString(data)
	case file != "":
		return os.ReadFile(within(dir, file))
	}
	return nil, nil
}

func within(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
