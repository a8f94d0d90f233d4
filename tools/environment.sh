# Sourced by the scripts that run commands elsewhere on this machine: sets the array `environment` to what pip and git
# need to reach a package index from here, and to CI and REAL. Nothing else of our environment goes along.
environment=(LANG=C.UTF-8)
while IFS= read -r variable; do
    environment+=("$variable")
done < <(env | grep -iE '^(PIP_[A-Z_]+|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|(HTTPS?|NO)_PROXY|CI|REAL)=' || true)
