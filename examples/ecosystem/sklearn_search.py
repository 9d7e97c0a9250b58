"""scikit-learn's n_jobs on River: `python sklearn_search.py`, or on other machines: `python sklearn_search.py node1`.

pip install "riverpool[sklearn]"; scikit-learn must be installed on the other machines, too.
"""

import sys

import joblib
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

import river.joblib  # noqa: F401 - from now on joblib knows "river"

X, y = load_iris(return_X_y=True)
search = GridSearchCV(SVC(), {"C": [0.1, 1, 10], "gamma": [0.01, 0.1, 1]}, cv=5)

with joblib.parallel_config("river", hosts=sys.argv[1:] or None, n_jobs=-1):
    search.fit(X, y)

print(search.best_params_, f"{search.best_score_:.2f}")  # -> {'C': 1, 'gamma': 0.1} 0.98
