core=$1; yaml=$2; tree=$3
cd $tree
. /work/venv/dev/bin/activate
export OMP_NUM_THREADS=1 PYTHONPATH=$tree
setsid taskset -c $core bash -c "echo -10 > /proc/self/autogroup; exec python -c 'from monai_cl.cli import main; main()' curve $yaml --processes 1" > $yaml.$core.log 2>&1 &
