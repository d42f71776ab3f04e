// Command tool is what test pods run: small, static, standard library only.
// The name it is called by, or its first argument, decides what it does.
//
//	pause                     wait for SIGTERM or SIGINT; adopts and forgets orphans
//	serve ADDRESS             answer each HTTP request with this host's name
//	fetch URL                 print the body of one HTTP answer; fail unless it is 200
//	webhook ADDRESS CERT KEY  an admission webhook: refuses objects labelled e2e.nvdra/refuse
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	args := os.Args
	if filepath.Base(args[0]) != "pause" && len(args) > 1 {
		args = args[1:]
	}
	if err := run(filepath.Base(args[0]), args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(what string, args []string) error {
	switch {
	case what == "pause":
		return pause()
	case what == "serve" && len(args) == 1:
		return http.ListenAndServe(args[0], http.HandlerFunc(sayHostname))
	case what == "fetch" && len(args) == 1:
		return fetch(args[0])
	case what == "webhook" && len(args) == 3:
		return http.ListenAndServeTLS(args[0], args[1], args[2], http.HandlerFunc(review))
	}
	return fmt.Errorf("usage: tool pause | serve ADDRESS | fetch URL | webhook ADDRESS CERT KEY")
}

func pause() error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return nil
		}
		for {
			if pid, _ := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 {
				break
			}
		}
	}
	return nil
}

func sayHostname(out http.ResponseWriter, _ *http.Request) {
	name, _ := os.Hostname()
	fmt.Fprintln(out, name)
}

func fetch(url string) error {
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(os.Stdout, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, answer.Status)
	}
	return nil
}

type admissionReview struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Request    *struct {
		UID    string `json:"uid"`
		Object struct {
			Metadata struct {
				Labels map[string]string `json:"labels"`
			} `json:"metadata"`
		} `json:"object"`
	} `json:"request,omitempty"`
	Response *admissionResponse `json:"response,omitempty"`
}

type admissionResponse struct {
	UID     string            `json:"uid"`
	Allowed bool              `json:"allowed"`
	Status  map[string]string `json:"status,omitempty"`
}

func review(out http.ResponseWriter, request *http.Request) {
	if request.Method == http.MethodGet {
		return // the readiness probe
	}
	var asked admissionReview
	if err := json.NewDecoder(request.Body).Decode(&asked); err != nil || asked.Request == nil {
		http.Error(out, "not an AdmissionReview", http.StatusBadRequest)
		return
	}
	answer := admissionResponse{UID: asked.Request.UID, Allowed: true}
	if reason, refuse := asked.Request.Object.Metadata.Labels["e2e.nvdra/refuse"]; refuse {
		answer.Allowed = false
		answer.Status = map[string]string{"message": "refused because of its label: " + reason}
	}
	asked.Request, asked.Response = nil, &answer
	out.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(out).Encode(asked)
}
